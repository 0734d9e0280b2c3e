"""The guard: deadlines, typed errors and counts. Calls are plain coroutines, and the clock moves only in the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import (
    INTERNAL,
    NOT_AVAILABLE,
    CommandError,
    EngineUnavailable,
    NotReplicated,
    StorageFull,
)
from beaconfire.base.timers import Timers
from beaconfire.engines.guard import REPORT_INTERVAL_S, CallGuard, guard_engine
from beaconfire.engines.interceptor import ENGINE_CALLS, EngineCall
from beaconfire.engines.memory import memory_engine
from beaconfire.engines.port import Engine, EngineState, HistoryOptions, MemberChange, PublishOptions
from beaconfire.model.events import EngineCallFailed, EngineStateChanged, InternalError
from beaconfire.model.publication import ClientInfo
from tests.fakes.engine import NoCallbacks
from tests.fakes.events import EventRecorder

TIMEOUT_S = 3.0
ANN = ClientInfo("ann", "c1")


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


def test_results_pass_unchanged() -> None:
    """A call that returns costs no event, and leaves no timer."""

    async def scenario(s: Setup) -> None:
        assert await s.guard.call("publish", return_("result")) == "result"
        assert s.events.events == []
        s.advance(1000)
        assert len(s.timers) == 0

    run(scenario)


def test_a_call_without_an_answer_fails_at_its_deadline() -> None:
    """The error is temporary for clients, and names the call, the engine, the time and the setting."""

    async def scenario(s: Setup) -> None:
        call = asyncio.ensure_future(s.guard.call("publish", hang()))
        await settle()
        s.advance(TIMEOUT_S - 0.001)
        await settle()
        assert not call.done()
        s.advance(0.001)
        with pytest.raises(EngineUnavailable) as raised:
            await call
        assert raised.value.code is INTERNAL
        for part in ("publish", "'memory'", "within 3s", "engine.timeout"):
            assert part in raised.value.detail
        assert s.failures == [("publish", "timeout")]

    run(scenario)


def test_the_waiting_time_of_a_call_extends_its_deadline() -> None:
    """A survey may use all of its own time."""

    async def scenario(s: Setup) -> None:
        call = asyncio.ensure_future(s.guard.call("control_survey", hang(), waits_s=5.0))
        await settle()
        s.advance(TIMEOUT_S + 4.9)
        await settle()
        assert not call.done()
        s.advance(0.1)
        with pytest.raises(EngineUnavailable):
            await call

    run(scenario)


def test_an_answer_in_the_turn_of_the_deadline_counts() -> None:
    """If the loop was blocked, answers that have arrived meanwhile are not thrown away."""

    async def scenario(s: Setup) -> None:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def wait() -> str:
            return await answer

        call = asyncio.ensure_future(s.guard.call("publish", wait()))
        await settle()
        answer.set_result("late")
        s.advance(TIMEOUT_S)
        assert await call == "late"
        assert s.failures == []

    run(scenario)


def test_a_cancelled_call_is_neither_an_answer_nor_a_failure() -> None:
    """The cancellation reaches the engine, and passes to the caller. No timer is left."""

    async def scenario(s: Setup) -> None:
        seen: list[str] = []

        async def notice() -> None:
            try:
                await hang()
            finally:
                seen.append("cancelled")

        call = asyncio.ensure_future(s.guard.call("publish", notice()))
        await settle()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert seen == ["cancelled"]
        assert s.events.events == []
        s.advance(1000)
        assert len(s.timers) == 0

    run(scenario)


def test_a_deadline_of_the_caller_is_not_a_failure_of_the_engine() -> None:
    """The caller gets the TimeoutError of its own deadline."""

    async def scenario(s: Setup) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await s.guard.call("publish", hang())
        assert s.events.events == []

    run(scenario)


@pytest.mark.parametrize(
    ("error", "reasons"),
    [
        (EngineUnavailable("link lost"), ["unavailable"]),
        (NotReplicated("1 of 2"), ["not_replicated"]),
        (StorageFull("disk full"), ["storage_full"]),
        (CommandError(NOT_AVAILABLE, "no disk"), []),
    ],
)
def test_typed_errors_pass_unchanged(error: CommandError, reasons: list[str]) -> None:
    """Those that are failures of the engine are counted by reason. None is an internal error."""

    async def scenario(s: Setup) -> None:
        assert await s.fail(error) is error
        assert s.failures == [("publish", reason) for reason in reasons]
        assert s.events.of(InternalError) == []

    run(scenario)


def test_a_timeout_inside_the_engine_is_a_timeout() -> None:
    """The text does not claim that the deadline of the guard has passed."""

    async def scenario(s: Setup) -> None:
        error = await s.fail(TimeoutError())
        assert isinstance(error, EngineUnavailable)
        assert "the engine waited too long" in error.detail
        assert s.failures == [("publish", "timeout")]
        assert s.events.of(InternalError) == []

    run(scenario)


@pytest.mark.parametrize("defect", [KeyError("x"), OSError("broken pipe"), asyncio.CancelledError()])
def test_unexpected_exceptions_become_typed_errors(defect: BaseException) -> None:
    """Also a cancellation that nobody asked for, which would otherwise end the task of the caller in silence."""

    async def scenario(s: Setup) -> None:
        error = await s.fail(defect, "history")
        assert isinstance(error, EngineUnavailable)
        assert type(defect).__name__ in error.detail
        assert error.__cause__ is defect
        assert s.failures == [("history", "defect")]
        assert [event.where for event in s.events.of(InternalError)] == ["engine history"]

    run(scenario)


def test_unexpected_exceptions_are_reported_once_a_minute_for_each_call() -> None:
    """All of them are counted."""

    async def scenario(s: Setup) -> None:
        for _ in range(3):
            await s.fail(KeyError("x"), "history")
        await s.fail(KeyError("x"), "publish")
        s.clock.advance(REPORT_INTERVAL_S)
        await s.fail(KeyError("x"), "history")
        reported = [event.where for event in s.events.of(InternalError)]
        assert reported == ["engine history", "engine publish", "engine history"]
        assert len(s.failures) == 5

    run(scenario)


def test_every_call_of_an_engine_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each method of the three parts runs under its own name, and its result and arguments pass unchanged."""

    async def scenario(s: Setup) -> None:
        names: list[str] = []
        guarded = CallGuard.call

        async def record(self: CallGuard, name: EngineCall, *rest: Any, **more: Any) -> Any:
            names.append(name)
            return await guarded(self, name, *rest, **more)

        monkeypatch.setattr(CallGuard, "call", record)
        engine = guard_engine(s.inner, TIMEOUT_S, s.timers, s.events)
        broker, presence, control = engine.broker, engine.presence, engine.control
        history = HistoryOptions(size=10, ttl_s=60.0)
        await broker.start(NoCallbacks())
        await control.start("node", NoCallbacks())
        await broker.ping()
        await broker.attach(["news"])
        position = (await broker.publish("news", Raw(b"{}"), PublishOptions(history=history))).position
        await broker.announce("news", [MemberChange(True, ANN)])
        assert (await broker.history("news", history, -1)).position == position
        assert await broker.positions({"news": history}) == {"news": position}
        await broker.remove_history("news")
        await broker.detach(["news"])
        await presence.add("news", [ANN], 60.0)
        assert await presence.refresh("news", ["c1", "c2"], 60.0) == ["c2"]
        assert await presence.members("news") == {"c1": ANN}
        assert (await presence.stats("news")).num_clients == 1
        await presence.remove("news", ["c1"])
        await control.broadcast(b"hello")
        assert await control.send("node", b"hello") is True
        assert await control.survey(b"?", 1.0) == [b""]
        assert list(await control.nodes()) == ["node"]
        await control.stop()
        await broker.stop()
        assert sorted(names) == sorted(ENGINE_CALLS)
        assert s.events.events == []
        assert engine.statistics() == s.inner.statistics()
        assert engine.sweep() is False
        assert (engine.name, engine.suspends) == ("memory", True)

    run(scenario)


def test_a_stop_that_fails_does_not_fail_the_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failures are counted."""

    async def scenario(s: Setup) -> None:
        engine = guard_engine(s.inner, TIMEOUT_S, s.timers, s.events)

        def fail_stop() -> Awaitable[None]:
            return raise_(OSError("gone"))

        monkeypatch.setattr(s.inner.broker, "stop", fail_stop)
        monkeypatch.setattr(s.inner.control, "stop", fail_stop)
        await engine.control.stop()
        await engine.broker.stop()
        assert s.failures == [("control_stop", "defect"), ("stop", "defect")]

    run(scenario)


# --- health ---------------------------------------------------------------------------------------------------


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
