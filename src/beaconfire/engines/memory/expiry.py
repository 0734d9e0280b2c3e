"""Expiry of many items with a few dozen bytes per item and without timers."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")

_STALE_SECONDS_MAX = 64
"""How many seconds without a bucket may stay in the heap, in addition to one for each bucket."""


class ExpiryBuckets(Generic[ItemT]):
    """Items in buckets of one second each. An item is due when its second is over.

    An item is due never before its time and at most one second later. Items of the same second are taken in any order.
    If the expiry of an item moves to a later time, the item stays in its bucket, because moving it would cost more than
    it saves: the caller that takes the item must compare the time and add the item again.
    """

    __slots__ = ("_buckets", "_seconds")

    def __init__(self) -> None:
        self._buckets: dict[int, set[ItemT]] = {}
        self._seconds: list[int] = []
        """A heap of the seconds with a bucket and of some without. The first second always has a bucket."""

    def add(self, item: ItemT, when_s: float) -> int:
        """Adds the item to the bucket of `when_s`. Returns the second of the bucket, which `remove` needs."""
        second = int(when_s) + 1
        bucket = self._buckets.get(second)
        if bucket is None:
            self._buckets[second] = {item}
            heapq.heappush(self._seconds, second)
        else:
            bucket.add(item)
        return second

    def remove(self, item: ItemT, second: int) -> None:
        """Removes the item from the bucket of `second`, if it is there."""
        bucket = self._buckets.get(second)
        if bucket is not None:
            bucket.discard(item)
            if not bucket:
                del self._buckets[second]
                self._remove_stale_seconds()

    def is_due(self, now_s: float) -> bool:
        """Whether at least one item is due."""
        return bool(self._seconds) and self._seconds[0] <= now_s

    def take_due(self, now_s: float) -> ItemT | None:
        """Removes and returns one item that is due, or returns None."""
        return self.take_first() if self.is_due(now_s) else None

    def take_first(self) -> ItemT | None:
        """Removes and returns one of the items with the earliest second, due or not; None if there are no items."""
        if not self._seconds:
            return None
        second = self._seconds[0]
        bucket = self._buckets[second]
        item = bucket.pop()
        if not bucket:
            del self._buckets[second]
            self._remove_stale_seconds()
        return item

    def _remove_stale_seconds(self) -> None:
        """Constant average time per removed bucket, apart from the heap operations."""
        seconds, buckets = self._seconds, self._buckets
        while seconds and seconds[0] not in buckets:
            heapq.heappop(seconds)
        if len(seconds) > 2 * len(buckets) + _STALE_SECONDS_MAX:
            self._seconds = list(buckets)
            heapq.heapify(self._seconds)

    def __len__(self) -> int:
        """Number of items. Linear in the number of buckets: only for statistics and tests."""
        return sum(len(bucket) for bucket in self._buckets.values())
