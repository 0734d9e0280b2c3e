"""Which of all publications was stored first, whatever stream it is in."""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar

SLACK = 4
"""Entries per publication that is kept, at most: each takes 16 bytes. Fewer would mean to look at them more often."""


class Keeper(Protocol):
    """A stream: what holds publications, each under its offset, and loses the oldest first."""

    oldest: int
    """The offset of the oldest that is kept; that of the next to come if none is."""


KeeperT = TypeVar("KeeperT", bound=Keeper)


class Ages(Generic[KeeperT]):
    """A queue with an entry for each publication. Most publications go for another reason than their age: then their
    entry stays until `tidy` or `take_oldest` finds that nothing is kept under it any more.

    `tidy` moves entries from the newer half to the older one as it looks at them, so all that it has not looked at in
    this round are newer than those that it has. Streams and offsets stand in queues of their own, because a tuple for
    each entry would take four times as much memory.
    """

    __slots__ = ("_newer", "_newer_offsets", "_older", "_older_offsets")

    def __init__(self) -> None:
        self._older: deque[KeeperT] = deque()
        self._older_offsets: deque[int] = deque()
        self._newer: deque[KeeperT] = deque()
        self._newer_offsets: deque[int] = deque()

    def __len__(self) -> int:
        """Entries, of publications that are kept or not."""
        return len(self._older) + len(self._newer)

    def add(self, keeper: KeeperT, offset: int) -> None:
        """A publication was stored just now."""
        self._newer.append(keeper)
        self._newer_offsets.append(offset)

    def take_oldest(self) -> KeeperT | None:
        """The stream whose oldest publication is the oldest of all, which the caller must drop; None if none is kept.

        Takes constant time on average: each entry is passed over once.
        """
        for keepers, offsets in ((self._older, self._older_offsets), (self._newer, self._newer_offsets)):
            while keepers:
                keeper = keepers.popleft()
                if offsets.popleft() >= keeper.oldest:
                    return keeper
        return None

    def tidy(self, kept: int, budget: int) -> bool:
        """Removes entries of publications that are gone, while there are more than `SLACK` times as many entries as
        `kept` publications. Looks at `budget` entries at most; True if there is more to do. It keeps up if it may look
        at two for each `add`."""
        while len(self) > SLACK * kept:
            if budget == 0:
                return True
            budget -= 1
            if not self._newer:
                self._older, self._newer = self._newer, self._older
                self._older_offsets, self._newer_offsets = self._newer_offsets, self._older_offsets
            keeper, offset = self._newer.popleft(), self._newer_offsets.popleft()
            if offset >= keeper.oldest:
                self._older.append(keeper)
                self._older_offsets.append(offset)
        return False
