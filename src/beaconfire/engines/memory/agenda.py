"""What has to be looked at later: bookkeeping of expiry that costs some dozens of bytes an entry and no timer each."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")

_SECONDS_GONE_MAX = 64
"""Seconds without a bucket that may stay in the heap, beside one for each second that has one."""


class Agenda(Generic[ItemT]):
    """Items in buckets of one second, taken out again when their second is over, or removed before.

    An item is in a bucket at most once. It comes out never before its time and at most a second after it. It is not
    moved when its time moves, because that would cost more than it saves: whoever takes it out looks whether its time
    has come, and adds it again if not. Items of one second come out in any order.
    """

    __slots__ = ("_buckets", "_seconds")

    def __init__(self) -> None:
        self._buckets: dict[int, set[ItemT]] = {}
        self._seconds: list[int] = []
        """A heap of the seconds that have a bucket, with others among them whose bucket is gone. The first has one."""

    def add(self, item: ItemT, when_s: float) -> int:
        """Returns the second of its bucket, which `remove` must be given."""
        second = int(when_s) + 1
        bucket = self._buckets.get(second)
        if bucket is None:
            self._buckets[second] = {item}
            heapq.heappush(self._seconds, second)
        else:
            bucket.add(item)
        return second

    def remove(self, item: ItemT, second: int) -> None:
        """Idempotent."""
        bucket = self._buckets.get(second)
        if bucket is not None:
            bucket.discard(item)
            if not bucket:
                del self._buckets[second]
                self._tidy()

    def is_due(self, now_s: float) -> bool:
        """Whether `take_due` would find something."""
        return bool(self._seconds) and self._seconds[0] <= now_s

    def take_due(self, now_s: float) -> ItemT | None:
        """One item whose time has come, or None."""
        return self.take_first() if self.is_due(now_s) else None

    def take_first(self) -> ItemT | None:
        """One of the items whose time comes first, or None if there are none."""
        if not self._seconds:
            return None
        second = self._seconds[0]
        bucket = self._buckets[second]
        item = bucket.pop()
        if not bucket:
            del self._buckets[second]
            self._tidy()
        return item

    def _tidy(self) -> None:
        """Takes constant time on average for each bucket that has gone, apart from the heap's own."""
        seconds, buckets = self._seconds, self._buckets
        while seconds and seconds[0] not in buckets:
            heapq.heappop(seconds)
        if len(seconds) > 2 * len(buckets) + _SECONDS_GONE_MAX:
            self._seconds = list(buckets)
            heapq.heapify(self._seconds)

    def __len__(self) -> int:
        """Items waiting, counted one bucket at a time: for statistics and tests."""
        return sum(len(bucket) for bucket in self._buckets.values())
