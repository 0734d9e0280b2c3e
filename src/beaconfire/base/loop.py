"""The event loop, the time and randomness, passed in so that tests control them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from beaconfire.base.timers import Timers

Schedule: TypeAlias = Callable[[Callable[[], None]], object]
"""Runs a callable on the next turn of the event loop: `call_soon` of an event loop."""

SLICE_S = 0.004
"""How long one piece of work may occupy the event loop. Longer work yields after each slice."""


class Runtime(Struct, frozen=True):
    """What one node takes from its process.

    `timers` are coarse: they fire up to 0.1 s late and cost little. `prompt_timers` fire on time. `random` returns
    numbers in [0, 1).
    """

    schedule: Schedule
    timers: Timers
    prompt_timers: Timers
    random: Callable[[], float]


class LoopTurns:
    """Lets other tasks and callbacks of the event loop run during long work."""

    def __init__(self, schedule: Schedule, now_s: Callable[[], float]) -> None:
        """`now_s` returns the monotonic time in seconds."""
        self._schedule = schedule
        self._now_s = now_s

    async def wait_for_next(self) -> None:
        """Returns on the next turn of the event loop."""
        turned = asyncio.get_running_loop().create_future()
        self._schedule(lambda: turned.set_result(None) if not turned.done() else None)
        await turned

    async def yield_after_slice(self, started_s: float) -> float:
        """Waits for the next turn if the work has run for `SLICE_S` since `started_s`.

        Call this method between two pieces of long work. It returns the start of the current slice, which the next
        call takes as `started_s`.
        """
        if self._now_s() - started_s < SLICE_S:
            return started_s
        await self.wait_for_next()
        return self._now_s()


class SharedSlice:
    """One slice of time in each turn of the event loop, for many tasks together."""

    def __init__(self, schedule: Schedule, now_s: Callable[[], float]) -> None:
        """`now_s` returns the monotonic time in seconds."""
        self._schedule = schedule
        self._now_s = now_s
        self._end_s = 0.0
        self._next: asyncio.Future[None] | None = None

    async def enter(self) -> None:
        """Returns when the slice of the current turn is not over. The caller may then work for a short time."""
        while True:
            now_s = self._now_s()
            if now_s < self._end_s:
                return
            if now_s > self._end_s + SLICE_S and self._next is None:
                self._end_s = now_s + SLICE_S  # nobody has worked recently
                return
            if self._next is None:
                self._next = asyncio.get_running_loop().create_future()
                self._schedule(self._begin)
            await asyncio.shield(self._next)

    def _begin(self) -> None:
        following, self._next = self._next, None
        self._end_s = self._now_s() + SLICE_S
        assert following is not None, "a task waits for the turn"
        following.set_result(None)


class PacedCalls:
    """One slice of time in each turn of the event loop, for calls that the loop makes in any number in one turn: a
    thousand connections can be opened or lost at once.

    The calls keep their order. Each turn makes one at least.
    """

    def __init__(self, schedule: Schedule, now_s: Callable[[], float]) -> None:
        """`now_s` returns the monotonic time in seconds."""
        self._schedule = schedule
        self._now_s = now_s
        self._end_s: float | None = None
        """The end of the slice of this turn. None if the turn has made no call."""
        self._waiting: deque[Callable[[], None]] = deque()

    def call(self, function: Callable[[], None]) -> None:
        """Calls the function at once, or in one of the next turns if the slice is over."""
        if self.is_over():
            self._waiting.append(function)
        else:
            function()

    def is_over(self) -> bool:
        """Whether a call must wait for the next turn. If not, the caller may work for a short time."""
        if self._waiting:
            return True
        now_s = self._now_s()
        if self._end_s is None:
            self._end_s = now_s + SLICE_S
            self._schedule(self._begin_turn)
            return False
        return now_s >= self._end_s

    def _begin_turn(self) -> None:
        self._end_s = None
        if not self._waiting:
            return
        self._schedule(self._begin_turn)  # first, so that a call that fails stops no other one
        self._end_s = self._now_s() + SLICE_S
        while self._waiting:
            self._waiting.popleft()()
            if self._now_s() >= self._end_s:
                return
