"""Moves streams into and out of the memory engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from beaconfire.base.clock import Clock
from beaconfire.engines.memory.idempotency import IdempotencyKeys
from beaconfire.engines.memory.streams import Stream, Streams
from beaconfire.engines.producers import Producer
from beaconfire.engines.transfer import ChannelSlice, KeyImage, ProducerImage, StreamImage
from beaconfire.model.position import StreamPosition

KEYS_PER_TURN: Final = 2000
"""How many idempotency keys one turn of the event loop puts into the index: about a millisecond."""

_NO_POSITION: Final = StreamPosition(0, "")


class MemoryTransfer:
    """Implements `Transfer`. Each channel is read and written in one step, on the thread of the event loop.

    Loaded streams need no `settle`: this engine ends with its process, so it is never taken for another one.
    """

    def __init__(self, streams: Streams, keys: IdempotencyKeys, clock: Clock) -> None:
        self._streams = streams
        self._keys = _ChannelKeys(keys)
        self._clock = clock
        self._snapshot: list[str] = []

    async def count(self) -> int:
        """See `Transfer.count`: the channels that have a stream."""
        return len(self._streams)

    async def channels(self, cursor: str, limit: int) -> ChannelSlice:
        """See `Transfer.channels`. The cursor is an index of the snapshot that the empty cursor takes."""
        if not cursor:
            await self._keys.build()
            keyed = self._keys.channels()
            names = self._streams.channels()
            known = set(names) if keyed else set()
            self._snapshot = names + [channel for channel in keyed if channel not in known]
        start = int(cursor or 0)
        end = start + limit
        more = end < len(self._snapshot)
        return ChannelSlice(self._snapshot[start:end], str(end) if more else "")

    async def export(self, channels: Mapping[str, int], at_s: float) -> list[StreamImage]:
        """See `Transfer.export`. All images are from the same moment."""
        await self._keys.build()
        self._keys.add_new()
        offset_s = self._unix_offset_s()
        images = (self._export(channel, since, at_s - offset_s, offset_s) for channel, since in channels.items())
        return [image for image in images if image is not None]

    async def load(self, images: Sequence[StreamImage]) -> Sequence[str]:
        """See `Transfer.load`. Above the memory limit, the engine removes the oldest publications of all channels."""
        await self._keys.build()
        self._keys.add_new()
        offset_s = self._unix_offset_s()
        refused = [image.channel for image in images if not self._load(image, offset_s)]
        self._streams.enforce_limit()
        return refused

    async def remove(self, channels: Sequence[str]) -> None:
        """See `Transfer.remove`."""
        await self._keys.build()
        self._keys.add_new()
        for channel in channels:
            self._streams.forget(channel)
            self._keys.remove(channel)

    async def follow(self) -> None:
        """Does nothing."""

    async def settle(self) -> None:
        """Does nothing."""

    async def adopt(self) -> None:
        """Does nothing."""

    def _unix_offset_s(self) -> float:
        """The Unix time at which the monotonic clock is 0."""
        return self._clock.unix_s() - self._clock.now_s()

    def _export(self, channel: str, since: int, now_s: float, offset_s: float) -> StreamImage | None:
        stream = self._streams.find(channel, now_s)
        if stream is None:
            keys = self._keys.read(channel, 0, now_s, offset_s)
            return _keys_only(channel, keys) if keys else None
        if since > stream.top:
            since = 0
        alive = 0 if stream.retained is None else stream.retained.count_alive(now_s)
        publications, expiries_s = (
            ([], []) if stream.retained is None else stream.retained.read_with_expiries(now_s, since, stream.top)
        )
        return StreamImage(
            channel=channel,
            position=stream.position,
            since=since,
            oldest=stream.top + 1 - alive,
            publications=publications,
            publication_expiries_s=[expires_s + offset_s for expires_s in expiries_s],
            expires_s=stream.expires_s + offset_s,
            version=stream.version,
            version_epoch=stream.version_epoch,
            ancestors=stream.ancestors,
            producers=_producers(stream),
            keys=self._keys.read(channel, since, now_s, offset_s),
        )

    def _load(self, image: StreamImage, offset_s: float) -> bool:
        """False, without any change, if a whole image is needed."""
        channel, position = image.channel, image.position
        stream = self._streams.find(channel, self._clock.now_s())
        if image.since:
            if stream is None or stream.position != StreamPosition(image.since, position.epoch):
                return False
        else:
            self._keys.remove(channel)
            self._streams.forget(channel)
            stream = None
        for key in image.keys:
            self._keys.put(channel, key.key, key.position, key.expires_s - offset_s)
        if image.has_stream:
            self._load_stream(stream, image, offset_s)
        return True

    def _load_stream(self, stream: Stream | None, image: StreamImage, offset_s: float) -> None:
        streams, position = self._streams, image.position
        expires_s = image.expires_s - offset_s
        if stream is None:
            stream = streams.put(image.channel, position.epoch, position.offset, expires_s)
        stream.expires_s = expires_s
        for publication, publication_expires_s in zip(image.publications, image.publication_expiries_s, strict=True):
            streams.put_publication(stream, publication, publication_expires_s - offset_s)
        stream.top = position.offset
        streams.drop_below(stream, image.oldest)
        if stream.retained is None:
            stream.oldest = stream.top + 1
        stream.version, stream.version_epoch = image.version, image.version_epoch
        stream.ancestors = tuple((epoch, offset) for epoch, offset in image.ancestors)
        for each in image.producers:
            streams.put_producer(stream, each.name, Producer(each.last, each.epoch, each.receipts))


class _ChannelKeys:
    """The idempotency keys by channel. The table of the engine has no such index, because only a migration needs it."""

    def __init__(self, keys: IdempotencyKeys) -> None:
        self._keys = keys
        self._index: dict[str, set[str]] = {}
        self._newest: tuple[tuple[str, str], float] | None = None
        """The newest key of the table that is in the index, with its expiry: a key can be stored again."""
        self._is_built = False

    async def build(self) -> None:
        """Makes the index once, in slices."""
        if self._is_built:
            return
        names = iter(self._keys.names())
        while part := list(islice(names, KEYS_PER_TURN)):
            for channel, key in part:
                self._add(channel, key)
            await asyncio.sleep(0)
        self._is_built = True

    def add_new(self) -> None:
        """Adds the keys that were stored since the last call."""
        newest = None
        for name, (expires_s, _) in self._keys.newest():
            if (name, expires_s) == self._newest:
                break
            newest = newest or (name, expires_s)
            self._add(*name)
        self._newest = newest or self._newest

    def channels(self) -> list[str]:
        return list(self._index)

    def read(self, channel: str, since: int, now_s: float, offset_s: float) -> list[KeyImage]:
        """The keys that have not expired, and whose position is `since` or above."""
        images = []
        for key in list(self._index.get(channel, ())):
            found = self._keys.get(channel, key)
            if found is None or found[0] <= now_s:
                self._discard(channel, key)
            elif found[1].offset >= since:
                images.append(KeyImage(key, found[1], found[0] + offset_s))
        return images

    def put(self, channel: str, key: str, position: StreamPosition, expires_s: float) -> None:
        self._keys.put(channel, key, position, expires_s)
        self._add(channel, key)

    def remove(self, channel: str) -> None:
        for key in self._index.pop(channel, ()):
            self._keys.remove(channel, key)

    def _add(self, channel: str, key: str) -> None:
        self._index.setdefault(channel, set()).add(key)

    def _discard(self, channel: str, key: str) -> None:
        keys = self._index[channel]
        keys.discard(key)
        if not keys:
            del self._index[channel]


def _producers(stream: Stream) -> list[ProducerImage]:
    if stream.producers is None:
        return []
    return [
        ProducerImage(name, producer.last, producer.epoch, producer.dump())
        for name, producer in stream.producers.items()
    ]


def _keys_only(channel: str, keys: Sequence[KeyImage]) -> StreamImage:
    """The image of a channel without a stream."""
    return StreamImage(channel, _NO_POSITION, 0, 1, (), (), 0.0, 0, "", (), (), keys)
