"""Durations, counted so that a percentile is at most half a percent off, however many there were.

Log-linear: every power of two is divided into 128 equal buckets, so a bucket is at most 1/128 of its value wide, and
its middle is at most 0.4 % from anything in it. Below 256 ns every value has a bucket of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

_PARTS_BITS: Final = 7
_VALUE_BITS: Final = _PARTS_BITS + 1
_LONGEST_NS: Final = (1 << 38) - 1
"""Four and a half minutes. What took longer counts as this, though `max_ns` knows better."""


def bucket(value_ns: int) -> int:
    shift = max(0, value_ns.bit_length() - _VALUE_BITS)
    return (shift << _PARTS_BITS) + (value_ns >> shift)


def middle(index: int) -> int:
    """The value in the middle of a bucket, nanoseconds."""
    shift = max(0, (index >> _PARTS_BITS) - 1)
    low = (index - (shift << _PARTS_BITS)) << shift
    return low + ((1 << shift) >> 1)


class Counts(Struct, frozen=True):
    """A histogram on its way between processes: bucket and count of all that are not empty, and the longest."""

    buckets: tuple[tuple[int, int], ...] = ()
    max_ns: int = 0


class Histogram:
    """Counts of durations in nanoseconds. A negative one counts as zero."""

    __slots__ = ("_buckets", "max_ns")

    def __init__(self, counts: Iterable[Counts] = ()) -> None:
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
        shift = value_ns.bit_length() - _VALUE_BITS  # `bucket`, without the call: this happens for every delivery
        if shift > 0:
            self._buckets[(shift << _PARTS_BITS) + (value_ns >> shift)] += 1
        else:
            self._buckets[value_ns] += 1

    @property
    def count(self) -> int:
        return sum(self._buckets)

    def quantile_ns(self, share: float) -> int:
        """The duration that this share of all did not exceed; 0 if there were none."""
        rank = share * self.count
        seen = 0
        for index, count in enumerate(self._buckets):
            seen += count
            if count and seen >= rank:
                return min(middle(index), self.max_ns)
        return self.max_ns

    def counts(self) -> Counts:
        return Counts(tuple((index, count) for index, count in enumerate(self._buckets) if count), self.max_ns)
