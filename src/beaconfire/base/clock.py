"""Time and timers, passed in wherever they are needed so that a test of thirty minutes takes a millisecond."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where the program gets the time."""

    def now_s(self) -> float:
        """Monotonic seconds: for intervals and deadlines."""

    def unix_s(self) -> float:
        """Seconds since 1970: for what the outside world compares, like token expiry."""


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    # The functions themselves: the time is asked for several times per message.
    now_s = staticmethod(time.monotonic)
    unix_s = staticmethod(time.time)


class ManualClock:
    """A clock that moves only when told. Both of its times move together."""

    def __init__(self, now_s: float = 1000.0, unix_s: float = 1_700_000_000.0) -> None:
        self._now_s = now_s
        self._offset_s = unix_s - now_s

    def now_s(self) -> float:
        return self._now_s

    def unix_s(self) -> float:
        return self._now_s + self._offset_s

    def advance(self, seconds: float) -> None:
        self._now_s += seconds
