"""Periodic work for each channel, spread over time, at a cost per channel that does not depend on their number."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final

from beaconfire.base.loop import SLICE_S, Schedule
from beaconfire.base.tasks import BackgroundTasks, run_all
from beaconfire.base.timers import Timer, Timers

STEPS: Final = 32
"""The steps of time in one interval. Channels that are due in the same step are worked on in one round."""


class PeriodicWork:
    """Calls `work` for each channel once per interval, with jitter, as long as `work` adds the channel again.

    Theory of operation. Time is cut into steps, and each step has a list of channels. Work on the channels of a step is
    a *round*. A round waits for the round before, so an engine that hangs never has more than one round of calls. With
    an engine that suspends, a round is a task with a bounded number of calls at the same time. Otherwise its calls are
    made one after the other, in slices of a few milliseconds.
    """

    def __init__(
        self,
        work: Callable[[Sequence[str]], Iterator[Coroutine[Any, Any, None]]],
        interval_s: float,
        timers: Timers,
        schedule: Schedule,
        random: Callable[[], float],
        background: BackgroundTasks,
    ) -> None:
        """`work` makes the calls for some channels, which must not raise. There is no work if `interval_s` is 0."""
        self._work = work
        self._interval_s = interval_s
        self._step_s = interval_s / STEPS
        self._timers = timers
        self._schedule = schedule
        self._random = random
        self._background = background
        self._channels: set[str] = set()
        self._steps: dict[int, list[str]] = {}
        self._calls: Iterator[Coroutine[Any, Any, None]] | None = None
        """The round that is not over."""
        self._timer: Timer | None = None
        self._is_stopped = False

    def add(self, channel: str) -> None:
        """Works on the channel after an interval, minus up to a quarter of the interval. Idempotent until then."""
        if channel in self._channels or not self._interval_s or self._is_stopped:
            return
        due_s = self._timers.clock.now_s() + self._interval_s * (0.75 + self._random() / 4)
        self._channels.add(channel)
        self._steps.setdefault(int(due_s / self._step_s), []).append(channel)
        self._set_timer()

    def hurry(self) -> None:
        """All channels that wait are due at the next step of time."""
        waiting = [channel for step in sorted(self._steps) for channel in self._steps[step]]
        self._steps.clear()
        if waiting:
            self._steps[int(self._timers.clock.now_s() / self._step_s) - 1] = waiting

    def stop(self) -> None:
        """No round starts any more."""
        self._is_stopped = True
        self._steps.clear()
        self._channels.clear()

    def __len__(self) -> int:
        """The number of channels that wait."""
        return len(self._channels)

    def _set_timer(self) -> None:
        if self._timer is None and self._steps:
            self._timer = self._timers.after(self._step_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._calls is None:
            self._start_round()
        self._set_timer()

    def _start_round(self) -> None:
        now = self._timers.clock.now_s() / self._step_s
        due = sorted(step for step in self._steps if step + 1 <= now)
        channels = [channel for step in due for channel in self._steps.pop(step)]
        if not channels:
            return
        self._channels.difference_update(channels)
        self._calls = self._work(channels)
        if self._background.engine_suspends:
            self._background.start(self._run_round(self._calls))
        else:
            self._run_slice()

    async def _run_round(self, calls: Iterator[Coroutine[Any, Any, None]]) -> None:
        try:
            await run_all(calls, concurrently=True)
        finally:
            self._calls = None

    def _run_slice(self) -> None:
        """Makes calls of an engine that never suspends, and continues on the next turn of the event loop."""
        assert self._calls is not None, "a round is not over"
        now_s = self._timers.clock.now_s
        end_s = now_s() + SLICE_S
        for call in self._calls:
            self._background.start_engine_work(call)
            if now_s() > end_s:
                self._schedule(self._run_slice)
                return
        self._calls = None
