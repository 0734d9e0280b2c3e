"""A guard in front of a memory engine, on a clock that only the test moves. Calls are plain coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import CommandError
from beaconfire.base.timers import Timers
from beaconfire.engines.guard import CallGuard
from beaconfire.engines.interceptor import EngineCall
from beaconfire.engines.memory import memory_engine
from beaconfire.model.events import EngineCallFailed
from tests.fakes.events import EventRecorder

TIMEOUT_S = 3.0


class Setup:
    """A guard in front of a memory engine."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.events = EventRecorder(expects_errors=True)
        self.inner = memory_engine(self.clock)
        self.guard = CallGuard(self.inner, TIMEOUT_S, self.timers, self.events)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()

    async def fail(self, error: BaseException, name: EngineCall = "publish") -> CommandError:
        """Makes a call that raises `error`, and returns what the caller gets."""
        with pytest.raises(CommandError) as raised:
            await self.guard.call(name, raise_(error))
        return raised.value

    @property
    def failures(self) -> list[tuple[str, str]]:
        return [(event.call, event.reason) for event in self.events.of(EngineCallFailed)]


async def raise_(error: BaseException) -> None:
    raise error


async def return_(value: str) -> str:
    return value


async def hang() -> None:
    await asyncio.get_running_loop().create_future()


async def settle() -> None:
    """Lets every task continue until it waits for something that the test controls."""
    for _ in range(10):
        await asyncio.sleep(0)


def run(scenario: Callable[[Setup], Coroutine[Any, Any, None]]) -> None:
    async def play() -> None:
        await scenario(Setup())

    asyncio.run(play())
