"""What has to be looked at later: bookkeeping of expiry that costs a few bytes an entry and no timer each."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


class Agenda(Generic[ItemT]):
    """Items in buckets of one second, taken out again when their second is over.

    An item comes out once per time it was added, never before its time and at most a second after it. It cannot be
    withdrawn or moved, because that would cost more than it saves: whoever takes it out looks whether it is still
    wanted, and adds it again if its time has moved. Items of one second come out in any order.
    """

    __slots__ = ("_buckets", "_seconds")

    def __init__(self) -> None:
        self._buckets: dict[int, list[ItemT]] = {}
        self._seconds: list[int] = []

    def add(self, item: ItemT, when_s: float) -> None:
        second = int(when_s) + 1
        bucket = self._buckets.get(second)
        if bucket is None:
            self._buckets[second] = [item]
            heapq.heappush(self._seconds, second)
        else:
            bucket.append(item)

    def is_due(self, now_s: float) -> bool:
        """Whether `take_due` would find something."""
        return bool(self._seconds) and self._seconds[0] <= now_s

    def take_due(self, now_s: float) -> ItemT | None:
        """One item whose time has come, or None."""
        if not self.is_due(now_s):
            return None
        second = self._seconds[0]
        bucket = self._buckets[second]
        item = bucket.pop()
        if not bucket:
            del self._buckets[second]
            heapq.heappop(self._seconds)
        return item

    def __len__(self) -> int:
        """Items waiting, counted one bucket at a time: for statistics and tests."""
        return sum(len(bucket) for bucket in self._buckets.values())
