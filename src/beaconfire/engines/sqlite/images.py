"""Reads and writes the images of streams in the database file. Synchronous, on the thread of the writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from beaconfire.engines.producers import Producer
from beaconfire.engines.sqlite.publications import PublicationTable, StoredPublications
from beaconfire.engines.sqlite.receipts import IdempotencyTable, ProducerTable
from beaconfire.engines.sqlite.streams import UNSETTLED, Stream, StreamTable
from beaconfire.engines.transfer import ChannelSlice, KeyImage, ProducerImage, StreamImage
from beaconfire.model.position import StreamPosition

_NO_POSITION: Final = StreamPosition(0, "")


class ImageTable:
    """`load`, `remove` and `settle` are parts of a batch. `channels` and `export` read the file, so they need a batch
    that is committed."""

    def __init__(
        self,
        streams: StreamTable,
        publications: PublicationTable,
        keys: IdempotencyTable,
        producers: ProducerTable,
        unix_s: Callable[[], float],
    ) -> None:
        self._streams = streams
        self._publications = publications
        self._keys = keys
        self._producers = producers
        self._unix_s = unix_s

    def count(self) -> int:
        """See `Transfer.count`."""
        return self._streams.count()

    def channels(self, cursor: str, limit: int) -> ChannelSlice:
        """See `Transfer.channels`. The cursor is the last channel of the slice before."""
        channels = self._streams.channels(cursor, limit)
        return ChannelSlice(channels, channels[-1] if len(channels) == limit else "")

    def prepare(self, channels: Mapping[str, int]) -> None:
        """Before `export`, in the batch before: streams of an older generation get their new epoch, as at any use."""
        now_s = self._unix_s()
        self._streams.prefetch(channels)
        for channel in channels:
            stream = self._streams.find(channel, now_s)
            if stream is not None and stream.generation >= 0:
                self._streams.fork_copy(stream)

    def export(self, channels: Mapping[str, int], at_s: float) -> list[StreamImage]:
        """See `Transfer.export`. Whole images are read together, with one statement for each table."""
        self._streams.prefetch(channels)
        found = {channel: self._streams.find(channel, at_s) for channel in channels}
        whole = [stream for channel, stream in found.items() if stream is not None and not channels[channel]]
        stored = self._publications.read_whole(whole, at_s)
        keys = self._keys.read_all([channel for channel, since in channels.items() if not since], at_s)
        producers = self._producers.read([stream for stream in found.values() if stream is not None])
        images = []
        for channel, stream in found.items():
            since = channels[channel]
            rows = self._keys.read(channel, since, at_s) if since else keys[channel]
            if stream is None:
                if rows:
                    images.append(_keys_only(channel, _keys(rows)))
                continue
            if since > stream.top:
                since = 0
            alive = stored[stream.id] if stream.id in stored else self._publications.read_tail(stream, since, at_s)
            images.append(_image(stream, channel, since, alive, producers.get(stream.id, ()), _keys(rows)))
        return images

    def load(self, images: Sequence[StreamImage]) -> list[str]:
        """See `Transfer.load`."""
        self._keys.flush()
        return [image.channel for image in images if not self._load(image)]

    def remove(self, channels: Sequence[str]) -> None:
        """See `Transfer.remove`."""
        self._keys.flush()
        for channel in channels:
            self._keys.remove(channel)
            self._streams.take_away(channel, self._unix_s())

    def follow(self) -> None:
        """See `Transfer.follow`."""
        self._streams.flush(self._unix_s())
        self._streams.follow()

    def settle(self) -> None:
        """See `Transfer.settle`."""
        self._streams.flush(self._unix_s())
        self._streams.settle()

    def adopt(self) -> None:
        """See `Transfer.adopt`."""
        self._streams.flush(self._unix_s())
        self._streams.adopt()

    def _load(self, image: StreamImage) -> bool:
        """False, without any change, if a whole image is needed."""
        channel, position, now_s = image.channel, image.position, self._unix_s()
        stream = self._streams.find(channel, now_s) if image.since else None
        if image.since:
            if stream is None or stream.position != StreamPosition(image.since, position.epoch):
                return False
        else:
            self._keys.flush()
            self._keys.remove(channel)
            self._streams.take_away(channel, now_s)
        for key in image.keys:
            self._keys.put(channel, key.key, key.position, key.expires_s)
        if image.has_stream:
            self._load_stream(stream or self._streams.put(channel, position.epoch, image.expires_s, now_s), image)
        return True

    def _load_stream(self, stream: Stream, image: StreamImage) -> None:
        if not image.since:
            stream.floor = image.oldest
        if image.publications:
            if image.publication_expiries_s[0] < stream.newest_expires_s:
                self._publications.expire_no_later(stream, image.publication_expiries_s[0])
            for publication, expires_s in zip(image.publications, image.publication_expiries_s, strict=True):
                self._publications.put(stream, publication, expires_s)
            stream.newest_expires_s = image.publication_expiries_s[-1]
        stream.top, stream.oldest = image.position.offset, image.oldest
        stream.expires_s = image.expires_s
        stream.due_s = min(image.publication_expiries_s[0], stream.due_s) if image.publications else stream.due_s
        stream.generation = UNSETTLED
        stream.version, stream.version_epoch = image.version, image.version_epoch
        stream.ancestors = [(epoch, offset) for epoch, offset in image.ancestors]
        if image.producers:
            self._producers.put(
                stream, {each.name: Producer(each.last, each.epoch, each.receipts) for each in image.producers}
            )
        self._streams.mark_changed(stream)


def _keys(rows: Sequence[tuple[str, StreamPosition, float]]) -> list[KeyImage]:
    return [KeyImage(*row) for row in rows]


def _keys_only(channel: str, keys: Sequence[KeyImage]) -> StreamImage:
    """The image of a channel without a stream."""
    return StreamImage(channel, _NO_POSITION, 0, 1, (), (), 0.0, 0, "", (), (), keys)


def _image(
    stream: Stream,
    channel: str,
    since: int,
    alive: StoredPublications,
    producers: Sequence[tuple[str, int, str, bytes]],
    keys: Sequence[KeyImage],
) -> StreamImage:
    return StreamImage(
        channel=channel,
        position=stream.position,
        since=since,
        oldest=alive.oldest,
        publications=alive.publications,
        publication_expiries_s=alive.expiries_s,
        expires_s=stream.expires_s,
        version=stream.version,
        version_epoch=stream.version_epoch,
        ancestors=[(epoch, offset) for epoch, offset in stream.ancestors],
        producers=[ProducerImage(*row) for row in producers],
        keys=keys,
    )
