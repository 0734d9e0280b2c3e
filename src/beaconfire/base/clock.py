"""Clocks. Code that needs the time gets a clock as an argument, so a test of thirty minutes takes a millisecond."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """The source of time for all code."""

    def now_s(self) -> float:
        """Monotonic time in seconds, for intervals and deadlines. The zero point is arbitrary."""

    def unix_s(self) -> float:
        """Seconds since 1970 (UTC), for times that other systems also use, such as token expiry."""


class SystemClock:
    """The clocks of the operating system."""

    __slots__ = ()

    # The C functions themselves and no methods around them: the time is read several times per message.
    now_s = staticmethod(time.monotonic)
    unix_s = staticmethod(time.time)


class ManualClock:
    """A clock for tests. The time changes only by `advance`, which moves both times by the same amount."""

    def __init__(self, now_s: float = 1000.0, unix_s: float = 1_700_000_000.0) -> None:
        self._now_s = now_s
        self._offset_s = unix_s - now_s

    def now_s(self) -> float:
        return self._now_s

    def unix_s(self) -> float:
        return self._now_s + self._offset_s

    def advance(self, seconds: float) -> None:
        self._now_s += seconds
