"""A timer for an event loop, precise to a tenth of a millisecond.

The timers of uvloop count whole milliseconds. Latency counts from the moment when a message was due, and a server with
little load delivers in less than a millisecond, so the timer's delay would be most of the latency. Linux offers timers
as file descriptors (timerfd), and an event loop reacts to a readable file descriptor at once.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from types import TracebackType
from typing import Final

_CLOCK_MONOTONIC: Final = 1
_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC if sys.platform == "linux" else 0
_ABSOLUTE: Final = 1


class _TimerSetting(ctypes.Structure):
    """`struct itimerspec`: the interval of repetitions and the first expiration, each in seconds and nanoseconds."""

    _fields_ = (("interval", ctypes.c_long * 2), ("first", ctypes.c_long * 2))


class PreciseTimer:
    """A context manager, for one waiting task at a time. Without timerfd, it uses the event loop's own timer."""

    def __enter__(self) -> PreciseTimer:
        self._file = -1
        self._expired: asyncio.Future[None] | None = None
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None)
            self._file = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._file >= 0:
            asyncio.get_running_loop().add_reader(self._file, self._on_readable)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file >= 0:
            asyncio.get_running_loop().remove_reader(self._file)
            os.close(self._file)

    async def wait_until(self, when_ns: int) -> None:
        """Returns at this monotonic time. If the time has passed, returns in the next iteration of the event loop."""
        if self._file < 0:
            await asyncio.sleep(max(0.0, (when_ns - time.monotonic_ns()) / 1e9))
            return
        self._expired = asyncio.get_running_loop().create_future()
        seconds, nanoseconds = divmod(max(1, when_ns), 1_000_000_000)
        setting = _TimerSetting((0, 0), (seconds, nanoseconds))
        self._libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(setting), None)
        await self._expired

    def _on_readable(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            return  # `wait_until` has set the timer again since it expired
        if self._expired is not None and not self._expired.done():
            self._expired.set_result(None)
