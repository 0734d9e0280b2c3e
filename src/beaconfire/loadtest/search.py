"""Finds the highest rate that a server sustains: doubles the rate until a run fails, then bisects."""

from __future__ import annotations

from typing import Final

PRECISION: Final = 0.05
"""The search ends when the lowest failed rate is at most this share above the highest sustained rate."""

STEPS_MAX: Final = 30
RATE_MIN: Final = 1.0
"""Messages per second. The search does not go lower."""


class RateSearch:
    """Try `rate`, call `record` with the result, and repeat until `rate` is None.

    `highest` is the highest sustained rate so far; 0 if there is none.
    """

    def __init__(self, first_rate: float) -> None:
        self.highest = 0.0
        self._lowest_failed = 0.0
        self._next: float | None = first_rate
        self._steps = 0

    @property
    def rate(self) -> float | None:
        """The rate to try next; None at the end of the search."""
        return self._next

    def record(self, sustained: bool) -> None:
        assert self._next is not None
        self._steps += 1
        if sustained:
            self.highest = self._next
        else:
            self._lowest_failed = self._next
        self._next = self._choose()

    def _choose(self) -> float | None:
        if self._steps >= STEPS_MAX:
            return None
        if not self._lowest_failed:
            return self.highest * 2
        if self._lowest_failed - self.highest <= self._lowest_failed * PRECISION:
            return None
        middle = _round((self._lowest_failed + self.highest) / 2)
        return middle if max(self.highest, RATE_MIN) < middle < self._lowest_failed else None


def _round(rate: float) -> float:
    """To three significant digits, so that the rate is easy to read."""
    return float(f"{rate:.3g}")
