"""Periodic work for each channel."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from beaconfire.base.clock import ManualClock
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timers
from beaconfire.channels.periodic import STEPS, PeriodicWork
from tests.unit.kit import settle

INTERVAL_S = 32.0


class PeriodicHarness:
    """Periodic work that records its channels, and repeats it for the channels in `needed`."""

    def __init__(self, suspends: bool = False, interval_s: float = INTERVAL_S) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.random = 0.0
        self.scheduled: list[Callable[[], None]] = []
        self.background = BackgroundTasks(self._fail, suspends)
        self.needed: set[str] = set()
        self.worked: list[tuple[str, float]] = []
        self.call_s = 0.0
        """How long a call takes."""
        self.held: asyncio.Event | None = None
        self.work = PeriodicWork(
            self._calls, interval_s, self.timers, self.scheduled.append, lambda: self.random, self.background
        )
        self.start_s = self.clock.now_s()

    @staticmethod
    def _fail(error: BaseException) -> None:
        raise error

    def _calls(self, channels: Sequence[str]) -> Iterator[Coroutine[Any, Any, None]]:
        for channel in channels:
            if channel in self.needed:
                self.work.add(channel)
            yield self._call(channel)

    async def _call(self, channel: str) -> None:
        self.worked.append((channel, self.clock.now_s() - self.start_s))
        self.clock.advance(self.call_s)
        if self.held is not None:
            await self.held.wait()

    def advance_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.clock.advance(1)
            self.timers.run_due()

    def times(self, channel: str) -> list[float]:
        return [at for name, at in self.worked if name == channel]


def test_work_is_repeated_while_the_channel_needs_it() -> None:
    """Between three quarters of the interval and the whole interval apart, and one step later at most."""
    for chance in (0.0, 0.5, 0.999):
        harness = PeriodicHarness()
        harness.random = chance
        harness.needed.add("a")
        harness.work.add("a")
        harness.advance_time(10 * INTERVAL_S)
        times = [0.0, *harness.times("a")]
        step_s = INTERVAL_S / STEPS
        for before, after in itertools.pairwise(times):
            assert 0.75 * INTERVAL_S <= after - before <= INTERVAL_S + 2 * step_s
        harness.needed.clear()
        harness.advance_time(2 * INTERVAL_S)
        assert len(harness.work) == len(harness.timers) == 0


def test_channel_is_added_once() -> None:
    """Adding is idempotent until the work is done."""
    harness = PeriodicHarness()
    for _ in range(3):
        harness.work.add("a")
    harness.advance_time(2 * INTERVAL_S)
    assert len(harness.times("a")) == 1


def test_work_is_spread_over_time() -> None:
    """Channels that were added together are not worked on together."""
    harness = PeriodicHarness()
    for number in range(64):
        harness.random = number / 64
        harness.work.add(f"c{number}")
    harness.advance_time(2 * INTERVAL_S)
    assert len({at for _, at in harness.worked}) >= 8


def test_interval_zero_means_no_work() -> None:
    """And no timer."""
    harness = PeriodicHarness(interval_s=0.0)
    harness.work.add("a")
    assert len(harness.work) == len(harness.timers) == 0


def test_stopped_work_does_not_start_again() -> None:
    """Channels cannot be added any more."""
    harness = PeriodicHarness()
    harness.work.add("a")
    harness.work.stop()
    harness.work.add("b")
    harness.advance_time(2 * INTERVAL_S)
    assert harness.worked == []
    assert len(harness.timers) == 0


def test_engine_that_never_suspends_is_called_in_slices() -> None:
    """Other work of the event loop runs in between."""
    harness = PeriodicHarness()
    harness.call_s = 0.003
    for number in range(10):
        harness.work.add(f"c{number}")
    harness.advance_time(INTERVAL_S)
    assert len(harness.worked) == 2
    while harness.scheduled:
        harness.scheduled.pop(0)()
    assert len(harness.worked) == 10


def test_hanging_engine_has_one_round_of_calls() -> None:
    """A round waits for the round before, however long the engine takes."""

    async def scenario() -> None:
        harness = PeriodicHarness(suspends=True)
        harness.needed.update(("a", "b"))
        harness.held = asyncio.Event()
        harness.work.add("a")
        harness.advance_time(20)
        harness.work.add("b")
        for _ in range(20):
            harness.advance_time(INTERVAL_S)
            await settle()
        assert len(harness.background) == 1
        assert [name for name, _ in harness.worked] == ["a"]
        harness.held.set()
        await settle()
        harness.advance_time(2)
        await settle()
        assert [name for name, _ in harness.worked[:3]] == ["a", "b", "a"]
        harness.work.stop()
        await harness.background.wait_idle()

    asyncio.run(scenario())
