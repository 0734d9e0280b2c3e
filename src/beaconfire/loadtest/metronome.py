"""Wakes an event loop at a time to the tenth of a millisecond.

The timers of uvloop know whole milliseconds, which is more than a quiet server needs for a delivery: latency counts
from when a message was due, and would be mostly our own waiting. Linux has timers that are files, and a loop waits for
those at once.
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


class _Setting(ctypes.Structure):
    """`struct itimerspec`: how often again, and when first; seconds and nanoseconds of each."""

    _fields_ = (("again", ctypes.c_long * 2), ("first", ctypes.c_long * 2))


class Metronome:
    """A context manager; one waiter at a time. Where there is no such timer, the loop's own must do."""

    def __enter__(self) -> Metronome:
        self._file = -1
        self._rung: asyncio.Future[None] | None = None
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None)
            self._file = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._file >= 0:
            asyncio.get_running_loop().add_reader(self._file, self._ring)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file >= 0:
            asyncio.get_running_loop().remove_reader(self._file)
            os.close(self._file)

    async def wait_until(self, when_ns: int) -> None:
        """Returns at this monotonic time, or on the loop's next turn if it is over."""
        if self._file < 0:
            await asyncio.sleep(max(0.0, (when_ns - time.monotonic_ns()) / 1e9))
            return
        self._rung = asyncio.get_running_loop().create_future()
        seconds, nanoseconds = divmod(max(1, when_ns), 1_000_000_000)
        setting = _Setting((0, 0), (seconds, nanoseconds))
        self._libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(setting), None)
        await self._rung

    def _ring(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            return  # it was set anew in the meantime
        if self._rung is not None and not self._rung.done():
            self._rung.set_result(None)
