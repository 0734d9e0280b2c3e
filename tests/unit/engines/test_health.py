"""The health of an engine: when it is down, when it is up again, and how the node finds out."""

from __future__ import annotations

import asyncio

import pytest

from beaconfire.base.errors import NOT_AVAILABLE, CommandError, EngineUnavailable, NotReplicated, StorageFull
from beaconfire.engines.guard import guard_engine
from beaconfire.engines.health import FAILURES_MAX
from beaconfire.engines.port import Engine, EngineState
from beaconfire.model.events import EngineStateChanged
from tests.fakes.engine import NoCallbacks

from .support import TIMEOUT_S, Setup, hang, return_, run, settle


def test_three_failures_in_a_row_mean_down_and_an_answer_means_up() -> None:
    """The state names the number of failures and the last problem. Each change is one event."""

    async def scenario(s: Setup) -> None:
        health = s.guard.health
        await s.fail(EngineUnavailable("publish: no"))
        await s.fail(EngineUnavailable("publish: no"))
        assert health.state() == EngineState(True)
        await s.fail(OSError("broken"), "history")
        down = health.state()
        assert down.up is False
        assert "3 calls failed in a row: history: OSError" in down.detail
        await s.fail(EngineUnavailable("publish: no"))
        await s.guard.call("publish", return_("ok"))
        assert health.state() == EngineState(True)
        changes = s.events.of(EngineStateChanged)
        assert [(change.engine, change.up) for change in changes] == [("memory", False), ("memory", True)]
        assert changes[0].detail == down.detail
        assert changes[1].detail == ""

    run(scenario)


def test_failures_of_calls_from_before_an_answer_do_not_count() -> None:
    """When an engine works again, calls that were made while it hung fail or reach their deadlines among its first
    answers. Calls that began after the last answer count."""

    async def scenario(s: Setup) -> None:
        reset = asyncio.get_running_loop().create_future()

        async def wait_for_reset() -> None:
            await reset

        late = [asyncio.ensure_future(s.guard.call("publish", hang())) for _ in range(FAILURES_MAX)]
        failing = [asyncio.ensure_future(s.guard.call("history", wait_for_reset())) for _ in range(FAILURES_MAX)]
        await settle()
        await s.guard.call("ping", return_("ok"))
        reset.set_exception(EngineUnavailable("the link was reset"))
        s.advance(TIMEOUT_S)
        await settle()
        assert all(isinstance(call.exception(), EngineUnavailable) for call in late + failing)
        assert len(s.failures) == 2 * FAILURES_MAX
        assert s.guard.health.state().up is True
        assert s.events.of(EngineStateChanged) == []
        late = [asyncio.ensure_future(s.guard.call("publish", hang())) for _ in range(FAILURES_MAX)]
        await settle()
        s.advance(TIMEOUT_S)
        await settle()
        assert all(isinstance(call.exception(), EngineUnavailable) for call in late)
        assert s.guard.health.state().up is False

    run(scenario)


@pytest.mark.parametrize("answer", [NotReplicated("1 of 2"), StorageFull("full"), CommandError(NOT_AVAILABLE)])
def test_a_refusal_is_an_answer(answer: CommandError) -> None:
    """An engine that refuses a call works. It may say itself that it is down."""

    async def scenario(s: Setup) -> None:
        for _ in range(2):
            await s.fail(EngineUnavailable("no"))
            await s.fail(EngineUnavailable("no"))
            await s.fail(answer)
        assert s.guard.health.state().up is True
        assert s.events.of(EngineStateChanged) == []

    run(scenario)


def test_an_engine_that_is_down_is_asked_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ping that hangs ends when the next one begins. The first answer makes the state up, without any other call."""

    async def scenario(s: Setup) -> None:
        pings: list[asyncio.Future[None]] = []

        async def ping() -> None:
            pings.append(asyncio.get_running_loop().create_future())
            await pings[-1]

        monkeypatch.setattr(s.inner.broker, "ping", ping)
        s.guard.health.start()
        s.guard.health.start()
        s.advance(1.0)
        await settle()
        assert pings == [], "the engine works, so nothing is asked"
        for _ in range(3):
            await s.fail(EngineUnavailable("no"))
        for number in range(1, 4):
            s.advance(1.0)
            await settle()
            assert len(pings) == number
        assert [ping.cancelled() for ping in pings] == [True, True, False]
        assert len(s.failures) == 3
        pings[-1].set_result(None)
        await settle()
        assert s.guard.health.state().up is True
        s.advance(1.0)
        await settle()
        assert len(pings) == 3
        s.guard.stop()
        s.advance(10.0)
        assert len(s.timers) == 0

    run(scenario)


def test_the_state_of_the_engine_itself_comes_first() -> None:
    """The engine knows its link. Changes of it are noticed at the checks, and readiness sees them at once."""

    async def scenario(s: Setup) -> None:
        state = EngineState(False, "connection refused")

        class Offline(Engine, frozen=True):
            def state(self) -> EngineState:
                return state

        inner = Offline(s.inner.name, s.inner.broker, s.inner.presence, s.inner.control)
        engine = guard_engine(inner, TIMEOUT_S, s.timers, s.events)
        await engine.broker.start(NoCallbacks())
        assert engine.state() == state
        s.advance(1.0)
        assert s.events.of(EngineStateChanged) == [EngineStateChanged("memory", False, "connection refused")]
        state = EngineState(True)
        assert engine.state() == state
        s.advance(1.0)
        assert s.events.of(EngineStateChanged)[1:] == [EngineStateChanged("memory", True, "")]
        await settle()
        await engine.broker.stop()
        await engine.broker.stop()
        state = EngineState(False, "again")
        s.advance(10.0)
        assert len(s.events.of(EngineStateChanged)) == 2

    run(scenario)
