"""Looks for the highest rate that holds: doubles until one does not, then halves the distance."""

from __future__ import annotations

from typing import Final

PRECISION: Final = 0.05
STEPS_MAX: Final = 30
RATE_MIN: Final = 1.0
"""Messages per second; what cannot do that has no limit worth finding."""


class Search:
    """Ask for `rate`, try it, `record` how it went, until `rate` is None. `held` is the highest that did, 0 if none."""

    def __init__(self, first_rate: float) -> None:
        self.held = 0.0
        self._failed = 0.0
        self._next: float | None = first_rate
        self._steps = 0

    @property
    def rate(self) -> float | None:
        return self._next

    def record(self, held: bool) -> None:
        assert self._next is not None
        self._steps += 1
        if held:
            self.held = self._next
        else:
            self._failed = self._next
        self._next = self._choose()

    def _choose(self) -> float | None:
        if self._steps >= STEPS_MAX:
            return None
        if not self._failed:
            return self.held * 2
        if self._failed - self.held <= self._failed * PRECISION:
            return None
        middle = _rounded((self._failed + self.held) / 2)
        return middle if max(self.held, RATE_MIN) < middle < self._failed else None


def _rounded(rate: float) -> float:
    """To three digits, for people."""
    return float(f"{rate:.3g}")
