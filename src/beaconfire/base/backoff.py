"""How long to wait before a failed call is repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_DELAY_S: Final = 0.2
"""The longest wait after the first failure. Each further failure in a row doubles the wait."""

DELAY_MAX_S: Final = 5.0


class Backoff:
    """Exponential backoff with jitter, so that many callers do not repeat their calls together."""

    def __init__(self, random: Callable[[], float]) -> None:
        """`random` returns numbers in [0, 1)."""
        self._random = random

    def delay_s(self, failures: int) -> float:
        """The time to wait after this number of failures in a row, at least one."""
        longest_s = min(DELAY_MAX_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 30))
        return longest_s * (0.5 + self._random() / 2)
