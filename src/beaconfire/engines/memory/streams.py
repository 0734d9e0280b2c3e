"""The streams of all channels: positions, and the tail of publications that is kept of each."""

from __future__ import annotations

from collections.abc import Callable

from beaconfire.engines.base import HistoryOptions
from beaconfire.engines.memory.agenda import Agenda
from beaconfire.engines.memory.tables import shrink
from beaconfire.engines.memory.tail import Tail
from beaconfire.messages import Publication, StreamPosition

UNUSED_TTL_S = 300.0
"""How long the position of a channel is kept in which nothing was ever published and to which nobody listens."""


class Stream:
    """One channel's position and what is kept of its publications.

    It is forgotten at `forget_s`, if nothing is left in it by then. `watched` says that the agenda of publications
    holds it, which it does exactly once while it keeps any.
    """

    __slots__ = ("channel", "epoch", "forget_s", "tail", "top", "version", "version_epoch", "watched")

    def __init__(self, channel: str, epoch: str, forget_s: float) -> None:
        self.channel = channel
        self.epoch = epoch
        self.forget_s = forget_s
        self.top = 0
        self.version = 0
        self.version_epoch = ""
        self.tail: Tail | None = None
        self.watched = False

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

    __slots__ = ("_expiring", "_forgettable", "_is_attached", "_new_epoch", "_table", "bytes", "publications")

    def __init__(self, new_epoch: Callable[[], str], is_attached: Callable[[str], bool]) -> None:
        self._new_epoch = new_epoch
        self._is_attached = is_attached
        self._table: dict[str, Stream] = {}
        self._expiring: Agenda[Stream] = Agenda()
        self._forgettable: Agenda[Stream] = Agenda()
        self.publications = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._table)

    def use(self, channel: str, meta_ttl_s: float, now_s: float) -> Stream:
        """The channel's stream, a new one if there is none; from now on it lives at least `meta_ttl_s`.

        One in which nothing was ever published lives for `UNUSED_TTL_S`, and as long as somebody listens: whoever may
        name channels could otherwise fill the memory with positions for a month.
        """
        stream = self._table.get(channel)
        if stream is not None and not self._is_forgotten(stream, now_s):
            stream.forget_s = now_s + (meta_ttl_s if stream.top else min(meta_ttl_s, UNUSED_TTL_S))
            return stream
        epoch = self._new_epoch()
        assert epoch not in ("", "_"), f"not an epoch: {epoch!r}"
        stream = self._table[channel] = Stream(channel, epoch, now_s + min(meta_ttl_s, UNUSED_TTL_S))
        self._forgettable.add(stream, stream.forget_s)
        return stream

    def store(self, stream: Stream, publication: Publication, options: HistoryOptions, now_s: float) -> None:
        """Appends the publication, whose offset must be `stream.top + 1`, and drops what is too much by now."""
        stream.top += 1
        stream.forget_s = max(stream.forget_s, now_s + options.meta_ttl_s)
        assert publication.offset == stream.top, "offsets rise by one"
        tail = stream.tail
        if tail is None:
            tail = stream.tail = Tail()
        expires_s = now_s + options.ttl_s
        tail.append(publication, expires_s)
        self.publications += 1
        self.bytes += len(publication.data)
        if len(tail) > options.size:
            self._drop(tail, len(tail) - options.size)
        if not stream.watched:
            stream.watched = True
            self._expiring.add(stream, expires_s)

    def clear(self, channel: str) -> None:
        """Forgets the channel's publications; the position stays."""
        stream = self._table.get(channel)
        if stream is not None and stream.tail is not None:
            self._drop(stream.tail, len(stream.tail))
            stream.tail = None

    def sweep(self, now_s: float, budget: int) -> bool:
        """Drops what is expired: at most `budget` publications and as many streams. True if there is more."""
        self._sweep_publications(now_s, budget)
        self._sweep_streams(now_s, budget)
        return self._expiring.is_due(now_s) or self._forgettable.is_due(now_s)

    def _sweep_publications(self, now_s: float, budget: int) -> None:
        while budget > 0 and (stream := self._expiring.take_due(now_s)) is not None:
            tail = stream.tail
            count = min(tail.count_expired(now_s), budget) if tail else 0
            budget -= max(1, count)
            if tail:
                self._drop(tail, count)
            if tail:
                self._expiring.add(stream, tail.oldest_expires_s)
            else:
                # Positions live far longer than publications: an empty one should cost as little as possible.
                stream.tail = None
                stream.watched = False

    def _sweep_streams(self, now_s: float, budget: int) -> None:
        while budget > 0 and (stream := self._forgettable.take_due(now_s)) is not None:
            budget -= 1
            if self._table.get(stream.channel) is not stream:
                continue  # Forgotten before, and perhaps followed by another of the same name.
            if self._is_forgotten(stream, now_s):
                del self._table[stream.channel]
                shrink(self._table)
            else:
                tail = stream.tail
                self._forgettable.add(stream, max(stream.forget_s, tail.newest_expires_s if tail else 0.0))

    def _is_forgotten(self, stream: Stream, now_s: float) -> bool:
        """Whether its time is up. A position that somebody is waiting at stays."""
        if not stream.is_forgotten(now_s):
            return False
        if stream.top or not self._is_attached(stream.channel):
            return True
        stream.forget_s = now_s + UNUSED_TTL_S
        return False

    def _drop(self, tail: Tail, count: int) -> None:
        self.publications -= count
        self.bytes -= tail.drop_oldest(count)
