"""A histogram of durations. Its percentiles are exact to half a percent, for any number of durations.

The buckets are log-linear: every power of two is divided into 128 equal buckets. So the width of a bucket is at most
1/128 of its values, and its middle is at most 0.4 % from each of its values. Below 256 ns each value has its own
bucket.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

_PARTS_BITS: Final = 7
_VALUE_BITS: Final = _PARTS_BITS + 1
_LONGEST_NS: Final = (1 << 38) - 1
"""Four and a half minutes. Longer durations are counted in the last bucket; `max_ns` is still exact."""


def bucket(value_ns: int) -> int:
    shift = max(0, value_ns.bit_length() - _VALUE_BITS)
    return (shift << _PARTS_BITS) + (value_ns >> shift)


def middle(index: int) -> int:
    """The value in the middle of a bucket, nanoseconds."""
    shift = max(0, (index >> _PARTS_BITS) - 1)
    low = (index - (shift << _PARTS_BITS)) << shift
    return low + ((1 << shift) >> 1)


class HistogramCounts(Struct, frozen=True):
    """A histogram in the form that is sent between processes.

    `buckets` are index and count of each bucket that is not empty. `max_ns` is the longest duration.
    """

    buckets: tuple[tuple[int, int], ...] = ()
    max_ns: int = 0


class Histogram:
    """Counts durations in nanoseconds. A negative duration counts as zero."""

    __slots__ = ("_buckets", "max_ns")

    def __init__(self, counts: Iterable[HistogramCounts] = ()) -> None:
        self._buckets = [0] * (bucket(_LONGEST_NS) + 1)
        self.max_ns = 0
        for each in counts:
            self.max_ns = max(self.max_ns, each.max_ns)
            for index, count in each.buckets:
                self._buckets[index] += count

    def record(self, value_ns: int) -> None:
        if value_ns > self.max_ns:
            self.max_ns = value_ns
            value_ns = min(value_ns, _LONGEST_NS)
        elif value_ns < 0:
            value_ns = 0
        shift = value_ns.bit_length() - _VALUE_BITS  # `bucket` without the call, because this runs for every delivery
        if shift > 0:
            self._buckets[(shift << _PARTS_BITS) + (value_ns >> shift)] += 1
        else:
            self._buckets[value_ns] += 1

    @property
    def count(self) -> int:
        return sum(self._buckets)

    def quantile_ns(self, share: float) -> int:
        """The quantile: this share of all durations is not longer. 0 if there are no durations."""
        rank = share * self.count
        seen = 0
        for index, count in enumerate(self._buckets):
            seen += count
            if count and seen >= rank:
                return min(middle(index), self.max_ns)
        return self.max_ns

    def counts(self) -> HistogramCounts:
        return HistogramCounts(tuple((index, count) for index, count in enumerate(self._buckets) if count), self.max_ns)
