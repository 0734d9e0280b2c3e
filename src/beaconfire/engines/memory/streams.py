"""The streams of all channels: their positions and their retained publications.

Positions and publications together have a memory limit. Above the limit, data is removed in this order:

1. Positions of channels without retained publications and without subscribers; those that expire first are removed
   first.
2. Publications of all channels, in the order in which they were stored.

The alternative, to refuse new publications, would let one publisher block all others until its publications expire.
For clients, removed data is the same as expired data: their recovery fails with `recovered: false`.
"""

from __future__ import annotations

from collections.abc import Callable
from sys import getsizeof

from beaconfire.engines.memory.dicts import shrink_dict
from beaconfire.engines.memory.expiry import ExpiryBuckets
from beaconfire.engines.memory.retained import RetainedPublications, cost_bytes
from beaconfire.engines.memory.storage_order import StorageOrder
from beaconfire.engines.port import HistoryOptions
from beaconfire.engines.producers import UNKNOWN_PRODUCER, Producer, Producers
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication

UNUSED_TTL_S = 300.0
"""How long the position of a channel is kept if nothing was ever published and no subscriber is attached."""

POSITION_BYTES = 432
"""Memory for a position without the channel name: the stream, its epoch, its table entries. Measured."""

RETAINED_BYTES = 352
"""Additional memory for a stream with at least one retained publication. Measured."""

_ATTACHED_SKIPPED_MAX = 4
"""How many positions of attached channels one search for a removable position may skip."""

_SKIPPED = -1
"""`Stream.bucket_second` of a position that is in no bucket. The memory limit would have removed the position, but its
channel was attached. The position gets a bucket again when the channel is detached."""


class Stream:
    """The position and the retained publications of one channel.

    The stream expires at `expires_s`, or later when its last publication expires. A stream with publications is in
    the buckets of publications, a stream without publications in those of positions, unless it was skipped.
    `bucket_second` names its bucket.
    """

    __slots__ = (
        "ancestors",
        "bucket_second",
        "channel",
        "epoch",
        "expires_s",
        "oldest",
        "position_bytes",
        "producers",
        "retained",
        "top",
        "version",
        "version_epoch",
    )

    def __init__(self, channel: str, epoch: str, expires_s: float) -> None:
        self.channel = channel
        self.epoch = epoch
        self.expires_s = expires_s
        self.top = 0
        self.oldest = 1
        """Offset of the oldest retained publication, expired or not. Without any, the offset of the next one."""
        self.version = 0
        self.version_epoch = ""
        self.retained: RetainedPublications | None = None
        self.producers: Producers | None = None
        self.ancestors: tuple[tuple[str, int], ...] = ()
        """Earlier epochs, each with the last offset that this stream shares with it. Only a stream that came from
        another engine has any."""
        self.bucket_second = 0
        self.position_bytes = POSITION_BYTES + getsizeof(channel)
        """Memory for the position, with the producers. Stored, because the size of a non-ASCII `str` grows when it is
        first encoded."""

    @property
    def position(self) -> StreamPosition:
        return StreamPosition(self.top, self.epoch)

    def is_expired(self, now_s: float) -> bool:
        """Whether the position and all publications have expired."""
        return now_s >= self.expires_s and (self.retained is None or self.retained.is_expired(now_s))

    def advance_version(self, version: int, version_epoch: str) -> bool:
        """Sets the version. False, without a change, if it is not above the last one of the same version epoch."""
        if version_epoch == self.version_epoch and version <= self.version:
            return False
        self.version = version
        self.version_epoch = version_epoch
        return True

    def read(self, now_s: float, limit: int, since: int | None, reverse: bool) -> list[Publication]:
        """The page that `Broker.history` describes. `since` is an offset."""
        if self.retained is None or limit == 0:
            return []
        if reverse:
            return self.retained.read_backward(now_s, limit, self.top + 1 if since is None else since, self.top)
        return self.retained.read_forward(now_s, limit, 0 if since is None else since, self.top)

    def continues(self, now_s: float, since: StreamPosition, reverse: bool) -> bool:
        """See `HistoryPage.continues`."""
        shared = self.top if since.epoch in ("", self.epoch) else dict(self.ancestors).get(since.epoch)
        if shared is None:
            return False
        oldest = self.top + 1 - (0 if self.retained is None else self.retained.count_alive(now_s))
        return reverse or oldest - 1 <= since.offset <= shared


class Streams:
    """The streams by channel.

    Expired streams and publications are never returned. Their memory is freed by `sweep`, with a bounded amount of
    work per call.
    """

    __slots__ = (
        "_bytes_max",
        "_is_attached",
        "_new_epoch",
        "_on_full",
        "_position_expiry",
        "_publication_expiry",
        "_storage_order",
        "_table",
        "bytes",
        "publications",
    )

    def __init__(
        self,
        new_epoch: Callable[[], str],
        is_attached: Callable[[str], bool],
        bytes_max: int,
        on_full: Callable[[], None],
    ) -> None:
        """`on_full` is called each time that `bytes_max` was exceeded and data was removed. It must not raise.

        `is_attached` tells whether a channel has subscribers on this node.
        """
        self._new_epoch = new_epoch
        self._is_attached = is_attached
        self._bytes_max = bytes_max
        self._on_full = on_full
        self._table: dict[str, Stream] = {}
        self._publication_expiry: ExpiryBuckets[Stream] = ExpiryBuckets()
        """Streams with publications, by the second in which their oldest publication expires, or an earlier second."""
        self._position_expiry: ExpiryBuckets[Stream] = ExpiryBuckets()
        """Streams of `_table` without publications, by the second in which they expire, or an earlier second."""
        self._storage_order: StorageOrder[Stream] = StorageOrder()
        self.publications = 0
        self.bytes = 0
        """Memory for all streams and publications together."""

    def __len__(self) -> int:
        return len(self._table)

    def get_or_create(self, channel: str, meta_ttl_s: float, now_s: float) -> Stream:
        """Returns the stream of the channel, if necessary a new one, and keeps the position for at least `meta_ttl_s`.

        The position of a stream without any publication so far is kept for `UNUSED_TTL_S`, and as long as the channel
        is attached. Otherwise clients that choose channel names could fill the memory with positions for a month.

        The caller must call `store` or `enforce_limit` afterwards.
        """
        stream = self._table.get(channel)
        if stream is not None and (now_s < stream.expires_s or not self._check_expired(stream, now_s)):
            stream.expires_s = now_s + (meta_ttl_s if stream.top else min(meta_ttl_s, UNUSED_TTL_S))
            return stream
        if stream is not None:
            self._remove(stream)
        epoch = self._new_epoch()
        assert epoch not in ("", "_"), f"not an epoch: {epoch!r}"
        stream = self._table[channel] = Stream(channel, epoch, now_s + min(meta_ttl_s, UNUSED_TTL_S))
        stream.bucket_second = self._position_expiry.add(stream, stream.expires_s)
        self.bytes += stream.position_bytes
        return stream

    def store(self, stream: Stream, publication: Publication, options: HistoryOptions, now_s: float) -> None:
        """Appends the publication, whose offset must be `stream.top + 1`, and applies all limits."""
        stream.top = top = stream.top + 1
        assert publication.offset == top, "offsets rise by one"
        position_expires_s = now_s + options.meta_ttl_s
        if position_expires_s > stream.expires_s:
            stream.expires_s = position_expires_s
        retained = stream.retained
        expires_s = now_s + options.ttl_s
        if retained is None:
            retained = stream.retained = RetainedPublications()
            self.bytes += RETAINED_BYTES
            self._position_expiry.remove(stream, stream.bucket_second)
            stream.bucket_second = self._publication_expiry.add(stream, expires_s)
        cost = cost_bytes(publication)
        retained.append(publication, expires_s, cost)
        self._storage_order.add(stream, top)
        self.publications += 1
        self.bytes += cost
        excess = top - stream.oldest + 1 - options.size
        if excess > 0:
            self._drop(stream, retained, excess)
        if self.bytes > self._bytes_max:
            self.enforce_limit()

    def receipt(self, channel: str, producer: str, seq: int, now_s: float) -> StreamPosition | None:
        """See `Producer.receipt`. Creates nothing."""
        stream = self._table.get(channel)
        if stream is None or stream.producers is None or stream.is_expired(now_s):
            return UNKNOWN_PRODUCER.receipt(producer, seq)
        return stream.producers.receipt(producer, seq)

    def take_number(
        self, channel: str, producer: str, position: StreamPosition, meta_ttl_s: float, now_s: float
    ) -> None:
        """Takes the next number of the producer, which `receipt` has checked. See `Producers.take`."""
        stream = self.get_or_create(channel, meta_ttl_s, now_s)
        if stream.producers is None:
            stream.producers = Producers()
        size = stream.producers.take(producer, position)
        stream.position_bytes += size
        self.bytes += size
        self.enforce_limit()

    def clear(self, channel: str) -> None:
        """Removes the publications of the channel and keeps the position."""
        stream = self._table.get(channel)
        if stream is not None and stream.retained is not None:
            self._drop(stream, stream.retained, len(stream.retained))
            self._on_emptied(stream)

    def forget(self, channel: str) -> None:
        """Removes the stream of the channel, with its position."""
        self.clear(channel)
        stream = self._table.get(channel)
        if stream is not None:
            self._remove(stream)

    # Streams of other engines

    def channels(self) -> list[str]:
        """The channels of all streams, expired ones included. A snapshot: linear."""
        return list(self._table)

    def find(self, channel: str, now_s: float) -> Stream | None:
        """The stream of the channel, or None if there is none or it has expired. Prolongs nothing."""
        stream = self._table.get(channel)
        return None if stream is None or stream.is_expired(now_s) else stream

    def put(self, channel: str, epoch: str, top: int, expires_s: float) -> Stream:
        """Replaces the stream of the channel by one without publications. The caller must call `enforce_limit`."""
        self.forget(channel)
        stream = self._table[channel] = Stream(channel, epoch, expires_s)
        stream.top, stream.oldest = top, top + 1
        stream.bucket_second = self._position_expiry.add(stream, expires_s)
        self.bytes += stream.position_bytes
        return stream

    def put_producer(self, stream: Stream, name: str, producer: Producer) -> None:
        """Adds or replaces a producer of the stream. The caller must call `enforce_limit`."""
        if stream.producers is None:
            stream.producers = Producers()
        size = stream.producers.put(name, producer)
        stream.position_bytes += size
        self.bytes += size

    def put_publication(self, stream: Stream, publication: Publication, expires_s: float) -> None:
        """Appends a publication, directly after the one before, if any. The caller must call `enforce_limit`."""
        retained = stream.retained
        if retained is None:
            retained = stream.retained = RetainedPublications()
            self.bytes += RETAINED_BYTES
            self._position_expiry.remove(stream, stream.bucket_second)
            stream.bucket_second = self._publication_expiry.add(stream, expires_s)
            stream.oldest = publication.offset
        assert publication.offset == stream.oldest + len(retained), "offsets rise by one"
        stream.top = publication.offset
        cost = cost_bytes(publication)
        retained.append(publication, expires_s, cost)
        self._storage_order.add(stream, publication.offset)
        self.publications += 1
        self.bytes += cost

    def drop_below(self, stream: Stream, offset: int) -> None:
        """Drops the publications below the offset."""
        if stream.retained is not None and offset > stream.oldest:
            self._drop(stream, stream.retained, min(offset - stream.oldest, len(stream.retained)))
            if not stream.retained:
                self._on_emptied(stream)

    # The memory limit and expiry

    def enforce_limit(self) -> None:
        """Removes data until the memory limit is met. The average time per publication and per new stream is constant,
        because each of them is removed once."""
        if self.bytes <= self._bytes_max:
            return
        while self.bytes > self._bytes_max:
            if self._remove_empty_stream():
                continue
            stream = self._storage_order.take_oldest()
            if stream is None:
                break  # Only positions of attached channels are left; other limits bound their number.
            assert stream.retained is not None, "the stream has a publication"
            self._drop(stream, stream.retained, 1)
            if not stream.retained:
                self._on_emptied(stream)
        self._on_full()

    def _remove_empty_stream(self) -> bool:
        """Removes one stream without publications and without subscribers. False if the search found none."""
        for _ in range(_ATTACHED_SKIPPED_MAX):
            stream = self._position_expiry.take_first()
            if stream is None:
                return False
            if not self._is_attached(stream.channel):
                self._remove(stream)
                return True
            stream.bucket_second = _SKIPPED
        return False

    def on_detached(self, channel: str) -> None:
        """The channel has been detached, so its position may be removed again."""
        stream = self._table.get(channel)
        if stream is not None and stream.bucket_second == _SKIPPED:
            stream.bucket_second = self._position_expiry.add(stream, stream.expires_s)

    def sweep(self, now_s: float, budget: int) -> bool:
        """Removes at most `budget` expired publications and at most `budget` expired streams. True if more remain."""
        self._sweep_publications(now_s, budget)
        self._sweep_streams(now_s, budget)
        more_entries = self._storage_order.remove_stale(self.publications, budget)
        return more_entries or self._publication_expiry.is_due(now_s) or self._position_expiry.is_due(now_s)

    def _sweep_publications(self, now_s: float, budget: int) -> None:
        while budget > 0 and (stream := self._publication_expiry.take_due(now_s)) is not None:
            retained = stream.retained
            assert retained, "streams in these buckets have publications"
            count = min(retained.count_expired(now_s), budget)
            budget -= max(1, count)
            self._drop(stream, retained, count)
            if retained:
                stream.bucket_second = self._publication_expiry.add(stream, retained.oldest_expires_s)
            else:
                self._on_emptied(stream)

    def _sweep_streams(self, now_s: float, budget: int) -> None:
        while budget > 0 and (stream := self._position_expiry.take_due(now_s)) is not None:
            budget -= 1
            if self._check_expired(stream, now_s):
                self._remove(stream)
            else:
                stream.bucket_second = self._position_expiry.add(stream, stream.expires_s)

    def _check_expired(self, stream: Stream, now_s: float) -> bool:
        """Whether the stream has expired. The position of an attached channel without any publication so far is
        prolonged instead: its subscribers hold this position, and a new epoch would look like a loss to them."""
        if not stream.is_expired(now_s):
            return False
        if stream.top or not self._is_attached(stream.channel):
            return True
        stream.expires_s = now_s + UNUSED_TTL_S
        return False

    def _remove(self, stream: Stream) -> None:
        """Removes the stream from the table. Its remaining publications have expired; a later sweep counts them out."""
        del self._table[stream.channel]
        shrink_dict(self._table)
        self.bytes -= stream.position_bytes
        if stream.retained is None:
            self._position_expiry.remove(stream, stream.bucket_second)

    def _on_emptied(self, stream: Stream) -> None:
        """The stream has no publications any more. Positions are kept much longer than publications, so the empty
        container is dropped."""
        stream.retained = None
        self.bytes -= RETAINED_BYTES
        self._publication_expiry.remove(stream, stream.bucket_second)
        if self._table.get(stream.channel) is stream:
            stream.bucket_second = self._position_expiry.add(stream, stream.expires_s)

    def _drop(self, stream: Stream, retained: RetainedPublications, count: int) -> None:
        stream.oldest += count
        self.publications -= count
        self.bytes -= retained.drop_oldest(count)
