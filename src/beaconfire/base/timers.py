"""Timers, passed in wherever they are needed so that a test of thirty minutes takes a millisecond."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Protocol, TypeAlias

from beaconfire.base.clock import Clock


class Timer:
    """One pending call. Cancelling costs next to nothing and may be done at any time, any number of times."""

    __slots__ = ("_timers", "callback", "when_s")

    def __init__(self, when_s: float, callback: Callable[[], None] | None, timers: Timers | None = None) -> None:
        """`timers` are those that hold it."""
        self.when_s = when_s
        self.callback = callback
        self._timers = timers

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            if self._timers is not None:
                self._timers.count_cancelled()


class Timers:
    """Many coarse timers behind a single wake-up, because one loop timer for each idle connection is dear.

    Timers fire in the order of their times, never early, and late by at most the `resolution_s` of whatever
    drives `run_due`. Callbacks must not raise; one that does is a bug and propagates to the driver.

    Cancelled timers are removed once they are more than half of all: whoever sets and cancels timers in a loop would
    otherwise fill the memory with timers that are due in minutes. The cost of removing is constant on average, because
    each removal of n timers follows more than n / 2 cancellations.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = itertools.count()
        self._cancelled = 0
        """How many cancelled timers are in the heap."""

    def at(self, when_s: float, callback: Callable[[], None]) -> Timer:
        """Calls back once the monotonic clock has reached `when_s`."""
        timer = Timer(when_s, callback, self)
        heapq.heappush(self._heap, (when_s, next(self._sequence), timer))
        return timer

    def after(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        return self.at(self.clock.now_s() + delay_s, callback)

    def run_due(self) -> None:
        """Fires what is due. A callback may add timers; those already due fire in the same call."""
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
        """For `Timer.cancel`: one more timer in the heap is cancelled."""
        self._cancelled += 1
        heap = self._heap
        if self._cancelled * 2 > len(heap):
            heap[:] = [entry for entry in heap if entry[2].callback is not None]
            heapq.heapify(heap)
            self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap)


class Cancellable(Protocol):
    """A call that may still be called off."""

    def cancel(self) -> None: ...


Later: TypeAlias = Callable[[float, Callable[[], None]], Cancellable]
"""Calls back after so many seconds: `call_later` of an event loop."""


class PromptTimers(Timers):
    """Timers that ask to be woken when the first of them is due, for what must be on time.

    One wake-up is asked for at any time. Each looks for the next when it comes, so two would go on as two for ever.
    """

    def __init__(self, clock: Clock, later: Later) -> None:
        super().__init__(clock)
        self._later = later
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
        self._wake_up = self._later(max(0.0, when_s - self.clock.now_s()), self._wake)

    def _wake(self) -> None:
        """Finds nothing where the event loop was early."""
        self._wake_s = float("inf")
        self._wake_up = None
        try:
            self.run_due()
        finally:
            if self._heap:
                self._wake_by(self._heap[0][0])
