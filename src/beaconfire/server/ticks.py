"""The regular work of a process: its timers, the expiry of its engine, and how late its event loop is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

from beaconfire.base.clock import Clock
from beaconfire.base.loop import Runtime
from beaconfire.base.timers import PreciseTimers, Timers
from beaconfire.engines.port import Engine
from beaconfire.model.events import EventSink, LoopMeasured

TIMER_RESOLUTION_S: Final = 0.1
SWEEP_INTERVAL_S: Final = 1.0


def make_runtime(clock: Clock, timers: Timers) -> Runtime:
    """The time and randomness of the running event loop. `timers` must be driven by `Ticks`."""
    loop = asyncio.get_running_loop()
    return Runtime(loop.call_soon, timers, PreciseTimers(clock, loop.call_later), random.random)


class Ticks:
    """Drives all timers with one timer of the event loop, measures how late it runs, and sweeps the engine."""

    def __init__(
        self, clock: Clock, timers: Timers, events: EventSink, engine: Engine, on_tick: Callable[[], None]
    ) -> None:
        """`on_tick` is called each time."""
        self._clock = clock
        self._timers = timers
        self._events = events
        self._engine = engine
        self._on_tick = on_tick
        self._sweep_s = clock.now_s()
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0

    def start(self) -> None:
        self._due_s = self._clock.now_s()
        self._run()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _run(self) -> None:
        now_s = self._clock.now_s()
        self._events.emit(LoopMeasured(max(0.0, now_s - self._due_s)))
        self._due_s = now_s + TIMER_RESOLUTION_S
        self._timer = asyncio.get_running_loop().call_later(TIMER_RESOLUTION_S, self._run)
        self._timers.run_due()
        self._on_tick()
        if self._clock.now_s() >= self._sweep_s:
            more = self._engine.sweep()
            self._sweep_s = self._clock.now_s() + (0 if more else SWEEP_INTERVAL_S)
