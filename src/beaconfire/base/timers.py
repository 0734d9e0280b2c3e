"""Timers on a `Clock`. Code that needs timers gets them as an argument, so tests control the time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Protocol, TypeAlias

from beaconfire.base.clock import Clock


class Timer:
    """One pending callback. `cancel` is cheap and may be called at any time and repeatedly.

    `callback` is None after the timer has fired or was cancelled.
    """

    __slots__ = ("_timers", "callback", "when_s")

    def __init__(self, when_s: float, callback: Callable[[], None] | None, timers: Timers | None = None) -> None:
        """`timers` is the collection that holds this timer."""
        self.when_s = when_s
        self.callback = callback
        self._timers = timers

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            if self._timers is not None:
                self._timers.count_cancelled()


class Timers:
    """Many coarse timers that one periodic call of `run_due` fires. A timer of the event loop for each idle connection
    would cost too much.

    Timers fire in the order of their times, and in the order of creation if their times are equal. A timer never fires
    early, and late by at most the interval at which `run_due` is called. Callbacks must not raise; an exception is a
    bug and propagates to the caller of `run_due`.

    Cancelled timers are removed when they are more than half of all timers. Otherwise code that sets and cancels
    timers in a loop would fill the memory with timers that are due only in minutes. The average cost of a removal is
    constant, because a removal of n timers follows more than n / 2 cancellations.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = itertools.count()
        self._cancelled = 0
        """The number of cancelled timers in the heap."""

    def at(self, when_s: float, callback: Callable[[], None]) -> Timer:
        """Calls `callback` once, when the monotonic clock has reached `when_s`."""
        timer = Timer(when_s, callback, self)
        heapq.heappush(self._heap, (when_s, next(self._sequence), timer))
        return timer

    def after(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Calls `callback` once, when `delay_s` seconds have passed."""
        return self.at(self.clock.now_s() + delay_s, callback)

    async def wait(self, delay_s: float) -> None:
        """Returns when the clock has advanced by `delay_s` seconds. Always suspends."""
        if delay_s <= 0:
            await asyncio.sleep(0)
            return
        done = asyncio.get_running_loop().create_future()
        timer = self.after(delay_s, lambda: done.set_result(None) if not done.done() else None)
        try:
            await done
        finally:
            timer.cancel()

    def run_due(self) -> None:
        """Fires all timers that are due. A callback may add timers; those that are already due fire in this call."""
        now_s = self.clock.now_s()
        heap = self._heap
        while heap and heap[0][0] <= now_s:
            timer = heapq.heappop(heap)[2]
            callback = timer.callback
            if callback is not None:
                timer.callback = None
                callback()
            else:
                self._cancelled -= 1

    def count_cancelled(self) -> None:
        """`Timer.cancel` calls this: one more timer in the heap is cancelled."""
        self._cancelled += 1
        heap = self._heap
        if self._cancelled * 2 > len(heap):
            heap[:] = [entry for entry in heap if entry[2].callback is not None]
            heapq.heapify(heap)
            self._cancelled = 0

    def __len__(self) -> int:
        """Number of timers in the heap, including cancelled ones."""
        return len(self._heap)


class Cancellable(Protocol):
    """A pending call that can be cancelled, such as `asyncio.TimerHandle`."""

    def cancel(self) -> None: ...


CallLater: TypeAlias = Callable[[float, Callable[[], None]], Cancellable]
"""Calls the function after the given number of seconds, like `call_later` of an event loop."""


class PreciseTimers(Timers):
    """Timers that fire on time: they schedule a call of `run_due` for the moment at which the first timer is due.

    At most one call is scheduled at any time. Each call schedules the next one, so two scheduled calls would never
    become one again.
    """

    def __init__(self, clock: Clock, call_later: CallLater) -> None:
        super().__init__(clock)
        self._call_later = call_later
        self._wake_s = float("inf")
        self._wake_up: Cancellable | None = None

    def at(self, when_s: float, callback: Callable[[], None]) -> Timer:
        timer = super().at(when_s, callback)
        self._wake_by(when_s)
        return timer

    def _wake_by(self, when_s: float) -> None:
        if when_s >= self._wake_s:
            return
        if self._wake_up is not None:
            self._wake_up.cancel()
        self._wake_s = when_s
        self._wake_up = self._call_later(max(0.0, when_s - self.clock.now_s()), self._wake)

    def _wake(self) -> None:
        """If the event loop called early, no timer is due, and this schedules the next call."""
        self._wake_s = float("inf")
        self._wake_up = None
        try:
            self.run_due()
        finally:
            if self._heap:
                self._wake_by(self._heap[0][0])
