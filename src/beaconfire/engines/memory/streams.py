"""The streams of all channels: positions, and the tail of publications that is kept of each.

Both are bounded in sum. Beyond the bound go, first, the positions of channels in which nothing is kept and nobody
listens, those first that would be forgotten soonest; then the publications that were stored first, in whatever channel.
The alternative, refusing to publish, would let one publisher silence all others until its publications expire. What is
dropped is told as what has expired is: whoever comes back for it hears that it was not recovered.
"""

from __future__ import annotations

from collections.abc import Callable
from sys import getsizeof

from beaconfire.engines.memory.agenda import Agenda
from beaconfire.engines.memory.ages import Ages
from beaconfire.engines.memory.tables import shrink
from beaconfire.engines.memory.tail import Tail, cost_bytes
from beaconfire.engines.port import HistoryOptions
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication

UNUSED_TTL_S = 300.0
"""How long the position of a channel is kept in which nothing was ever published and to which nobody listens."""

POSITION_BYTES = 424
"""What a position costs beside the channel's name, measured: the stream, its epoch, its places in tables."""

TAIL_BYTES = 352
"""What a stream costs in addition while it keeps publications, whatever their number, measured."""

_ATTACHED_SEEN_MAX = 4
"""How many positions of channels that have subscribers are passed over in search of one that may go."""

_PASSED_OVER = -1
"""`Stream.second` of a position that is in no agenda: it would have had to go, but its channel has subscribers. It is
looked at again when they have left."""


class Stream:
    """One channel's position and what is kept of its publications.

    It is forgotten at `forget_s`, if nothing is left in it by then. It stands in one agenda: in that of publications
    while it keeps any, else in that of positions, unless it was passed over. `second` is its bucket there.
    """

    __slots__ = (
        "channel",
        "epoch",
        "forget_s",
        "oldest",
        "position_bytes",
        "second",
        "tail",
        "top",
        "version",
        "version_epoch",
    )

    def __init__(self, channel: str, epoch: str, forget_s: float) -> None:
        self.channel = channel
        self.epoch = epoch
        self.forget_s = forget_s
        self.top = 0
        self.oldest = 1
        """The offset of the oldest publication that is kept, expired or not; that of the next if none is."""
        self.version = 0
        self.version_epoch = ""
        self.tail: Tail | None = None
        self.second = 0
        self.position_bytes = POSITION_BYTES + getsizeof(channel)
        """What its position costs. Kept, because a text that is not ASCII grows when it is first encoded."""

    @property
    def position(self) -> StreamPosition:
        return StreamPosition(self.top, self.epoch)

    def is_forgotten(self, now_s: float) -> bool:
        return now_s >= self.forget_s and (self.tail is None or self.tail.is_expired(now_s))

    def advance_version(self, version: int, version_epoch: str) -> bool:
        """Takes a publication's version; False if it is not newer than the last one of the same version epoch."""
        if version_epoch == self.version_epoch and version <= self.version:
            return False
        self.version = version
        self.version_epoch = version_epoch
        return True

    def read(self, now_s: float, limit: int, since: int | None, reverse: bool) -> list[Publication]:
        """As `Broker.history`, where `since` is its offset."""
        if self.tail is None or limit == 0:
            return []
        if reverse:
            return self.tail.read_backward(now_s, limit, self.top + 1 if since is None else since, self.top)
        return self.tail.read_forward(now_s, limit, 0 if since is None else since, self.top)


class Streams:
    """The table of streams. What is expired is never seen, and `sweep` gives its memory back."""

    __slots__ = (
        "_ages",
        "_bytes_max",
        "_expiring",
        "_forgettable",
        "_is_attached",
        "_new_epoch",
        "_on_full",
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
        """`on_full` is called each time that `bytes_max` was exceeded and something was dropped. It must not raise."""
        self._new_epoch = new_epoch
        self._is_attached = is_attached
        self._bytes_max = bytes_max
        self._on_full = on_full
        self._table: dict[str, Stream] = {}
        self._expiring: Agenda[Stream] = Agenda()
        """Streams with publications, by the second in which the first of them expires, or an earlier one."""
        self._forgettable: Agenda[Stream] = Agenda()
        """Streams in the table without publications, by the second in which they are forgotten, or an earlier one."""
        self._ages: Ages[Stream] = Ages()
        self.publications = 0
        self.bytes = 0
        """What streams and publications cost together."""

    def __len__(self) -> int:
        return len(self._table)

    def use(self, channel: str, meta_ttl_s: float, now_s: float) -> Stream:
        """The channel's stream, a new one if there is none; from now on it lives at least `meta_ttl_s`.

        One in which nothing was ever published lives for `UNUSED_TTL_S`, and as long as somebody listens: whoever may
        name channels could otherwise fill the memory with positions for a month. Afterwards the caller must call
        `store` or `make_room`.
        """
        stream = self._table.get(channel)
        if stream is not None and not self._is_forgotten(stream, now_s):
            stream.forget_s = now_s + (meta_ttl_s if stream.top else min(meta_ttl_s, UNUSED_TTL_S))
            return stream
        if stream is not None:
            self._forget(stream)
        epoch = self._new_epoch()
        assert epoch not in ("", "_"), f"not an epoch: {epoch!r}"
        stream = self._table[channel] = Stream(channel, epoch, now_s + min(meta_ttl_s, UNUSED_TTL_S))
        stream.second = self._forgettable.add(stream, stream.forget_s)
        self.bytes += stream.position_bytes
        return stream

    def store(self, stream: Stream, publication: Publication, options: HistoryOptions, now_s: float) -> None:
        """Appends the publication, whose offset must be `stream.top + 1`, and drops what is too much by now."""
        stream.top += 1
        stream.forget_s = max(stream.forget_s, now_s + options.meta_ttl_s)
        assert publication.offset == stream.top, "offsets rise by one"
        tail = stream.tail
        expires_s = now_s + options.ttl_s
        if tail is None:
            tail = stream.tail = Tail()
            self.bytes += TAIL_BYTES
            self._forgettable.remove(stream, stream.second)
            stream.second = self._expiring.add(stream, expires_s)
        cost = cost_bytes(publication)
        tail.append(publication, expires_s, cost)
        self._ages.add(stream, publication.offset)
        self.publications += 1
        self.bytes += cost
        excess = stream.top - stream.oldest + 1 - options.size
        if excess > 0:
            self._drop(stream, tail, excess)
        if self.bytes > self._bytes_max:
            self.make_room()

    def clear(self, channel: str) -> None:
        """Forgets the channel's publications; the position stays."""
        stream = self._table.get(channel)
        if stream is not None and stream.tail is not None:
            self._drop(stream, stream.tail, len(stream.tail))
            self._empty(stream)

    def make_room(self) -> None:
        """Drops what may go until no more is kept than may be. Takes constant time on average for each publication and
        each new stream, because each is dropped once."""
        if self.bytes <= self._bytes_max:
            return
        while self.bytes > self._bytes_max:
            if self._drop_position():
                continue
            stream = self._ages.take_oldest()
            if stream is None:
                break  # what is left are positions of channels with subscribers, which other limits bound
            assert stream.tail is not None, "it keeps a publication"
            self._drop(stream, stream.tail, 1)
            if not stream.tail:
                self._empty(stream)
        self._on_full()

    def _drop_position(self) -> bool:
        """Forgets a channel in which nothing is kept and nobody listens. False if none was found."""
        for _ in range(_ATTACHED_SEEN_MAX):
            stream = self._forgettable.take_first()
            if stream is None:
                return False
            if not self._is_attached(stream.channel):
                self._forget(stream)
                return True
            stream.second = _PASSED_OVER
        return False

    def on_detached(self, channel: str) -> None:
        """Nobody listens to the channel any more: its position may go again."""
        stream = self._table.get(channel)
        if stream is not None and stream.second == _PASSED_OVER:
            stream.second = self._forgettable.add(stream, stream.forget_s)

    def sweep(self, now_s: float, budget: int) -> bool:
        """Drops what is expired: at most `budget` publications and as many streams. True if there is more."""
        self._sweep_publications(now_s, budget)
        self._sweep_streams(now_s, budget)
        untidy = self._ages.tidy(self.publications, budget)
        return untidy or self._expiring.is_due(now_s) or self._forgettable.is_due(now_s)

    def _sweep_publications(self, now_s: float, budget: int) -> None:
        while budget > 0 and (stream := self._expiring.take_due(now_s)) is not None:
            tail = stream.tail
            assert tail, "it keeps publications"
            count = min(tail.count_expired(now_s), budget)
            budget -= max(1, count)
            self._drop(stream, tail, count)
            if tail:
                stream.second = self._expiring.add(stream, tail.oldest_expires_s)
            else:
                self._empty(stream)

    def _sweep_streams(self, now_s: float, budget: int) -> None:
        while budget > 0 and (stream := self._forgettable.take_due(now_s)) is not None:
            budget -= 1
            if self._is_forgotten(stream, now_s):
                self._forget(stream)
            else:
                stream.second = self._forgettable.add(stream, stream.forget_s)

    def _is_forgotten(self, stream: Stream, now_s: float) -> bool:
        """Whether its time is up. A position that somebody is waiting at stays."""
        if not stream.is_forgotten(now_s):
            return False
        if stream.top or not self._is_attached(stream.channel):
            return True
        stream.forget_s = now_s + UNUSED_TTL_S
        return False

    def _forget(self, stream: Stream) -> None:
        """Takes a stream out of the table. Publications that are left in it have expired, and are swept in time."""
        del self._table[stream.channel]
        shrink(self._table)
        self.bytes -= stream.position_bytes
        if stream.tail is None:
            self._forgettable.remove(stream, stream.second)

    def _empty(self, stream: Stream) -> None:
        """Nothing is left in its tail. Positions live far longer than publications, so they keep no empty one."""
        stream.tail = None
        self.bytes -= TAIL_BYTES
        self._expiring.remove(stream, stream.second)
        if self._table.get(stream.channel) is stream:
            stream.second = self._forgettable.add(stream, stream.forget_s)

    def _drop(self, stream: Stream, tail: Tail, count: int) -> None:
        stream.oldest += count
        self.publications -= count
        self.bytes -= tail.drop_oldest(count)
