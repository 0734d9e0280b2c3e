"""The composition root: how it puts the engine, readiness and metrics together."""

from __future__ import annotations

import asyncio

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.config import Config
from beaconfire.engines.guard import GuardedEngine
from beaconfire.engines.memory import MemoryEngine, memory_engine
from beaconfire.engines.port import Engine, EngineState
from beaconfire.server import engines
from beaconfire.server.app import App
from beaconfire.server.engines import EngineRow, Needs


class RemoteEngine(Engine, frozen=True):
    """An engine that suspends, with the state that the test sets."""

    states: list[EngineState] = []  # noqa: RUF012 - a field of a struct

    def state(self) -> EngineState:
        return self.states[-1]


def test_the_memory_engine_is_ready_and_has_no_guard() -> None:
    """A guard would cost time for each call, and the memory engine neither waits nor fails."""

    async def scenario() -> None:
        app = App(Config(), ManualClock())
        assert isinstance(app.engine, MemoryEngine)
        app.health.started()
        report = app.health.ready()
        assert (report.status, report.checks) == ("ok", {"engine": "ok", "revocations": "ok"})
        assert b"beaconfire_engine_up 1.0" in app.metrics.exposition()

    asyncio.run(scenario())


def test_an_engine_that_suspends_has_a_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its state decides readiness and the gauge, with the detail of the engine."""
    states = [EngineState(True)]

    def make(needs: Needs) -> Engine:
        memory = memory_engine(needs.runtime.timers.clock)
        return RemoteEngine("remote", memory.broker, memory.presence, memory.control, states=states)

    async def scenario() -> None:
        app = App(Config(), ManualClock())
        assert isinstance(app.engine, GuardedEngine)
        await app.start()
        assert app.health.ready().checks == {"engine": "ok", "revocations": "ok"}
        states.append(EngineState(False, "no connection to 10.0.0.1:6379"))
        report = app.health.ready()
        assert (report.status, report.checks) == (
            "failing",
            {"engine": "no connection to 10.0.0.1:6379", "revocations": "ok"},
        )
        assert b"beaconfire_engine_up 0.0" in app.metrics.exposition()
        states.append(EngineState(False))
        assert app.health.ready().checks == {"engine": "down", "revocations": "ok"}
        await app.stop()

    monkeypatch.setattr(engines, "ENGINES", {"memory": EngineRow(make, "remote")})
    asyncio.run(scenario())
