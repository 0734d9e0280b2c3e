"""The order in which the publications of all streams were stored."""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar

ENTRIES_PER_PUBLICATION_MAX = 4
"""The highest number of entries per retained publication. An entry takes 16 bytes. With a lower number, stale entries
would have to be removed more often."""


class RetainingStream(Protocol):
    """A stream that retains publications by offset and removes the oldest first."""

    oldest: int
    """Offset of the oldest retained publication. Without any, the offset of the next one."""


StreamT = TypeVar("StreamT", bound=RetainingStream)


class StorageOrder(Generic[StreamT]):
    """A queue with one entry per publication, oldest first.

    Most publications are removed for another reason than the memory limit. Their entries become stale and stay until
    `remove_stale` or `take_oldest` finds them.

    `remove_stale` moves the entries that it examines from the newer queue to the older queue. So all entries of the
    newer queue were added after those of the older queue. Streams and offsets are in separate queues, because a tuple
    per entry would take four times as much memory.
    """

    __slots__ = ("_newer", "_newer_offsets", "_older", "_older_offsets")

    def __init__(self) -> None:
        self._older: deque[StreamT] = deque()
        self._older_offsets: deque[int] = deque()
        self._newer: deque[StreamT] = deque()
        self._newer_offsets: deque[int] = deque()

    def __len__(self) -> int:
        """Number of entries, including stale ones."""
        return len(self._older) + len(self._newer)

    def add(self, stream: StreamT, offset: int) -> None:
        """Adds the publication that was just stored."""
        self._newer.append(stream)
        self._newer_offsets.append(offset)

    def take_oldest(self) -> StreamT | None:
        """Returns the stream with the oldest publication of all, or None if no stream retains any.

        The caller must remove that publication. The average time is constant, because each entry is passed once.
        """
        for streams, offsets in ((self._older, self._older_offsets), (self._newer, self._newer_offsets)):
            while streams:
                stream = streams.popleft()
                if offsets.popleft() >= stream.oldest:
                    return stream
        return None

    def remove_stale(self, kept: int, budget: int) -> bool:
        """Removes stale entries, as long as there are more than `ENTRIES_PER_PUBLICATION_MAX` entries for each of the
        `kept` publications.

        Examines at most `budget` entries. True if there is more to do. A budget of two entries per `add` is enough.
        """
        while len(self) > ENTRIES_PER_PUBLICATION_MAX * kept:
            if budget == 0:
                return True
            budget -= 1
            if not self._newer:
                self._older, self._newer = self._newer, self._older
                self._older_offsets, self._newer_offsets = self._newer_offsets, self._older_offsets
            stream, offset = self._newer.popleft(), self._newer_offsets.popleft()
            if offset >= stream.oldest:
                self._older.append(stream)
                self._older_offsets.append(offset)
        return False
