"""The guard: deadlines, typed errors and counts. Calls are plain coroutines, and the clock moves only in the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.errors import (
    INTERNAL,
    NOT_AVAILABLE,
    CommandError,
    EngineUnavailable,
    NotReplicated,
    StorageFull,
)
from beaconfire.engines.guard import REPORT_INTERVAL_S, CallGuard, guard_engine
from beaconfire.engines.interceptor import ENGINE_CALLS, EngineCall
from beaconfire.engines.port import HistoryOptions, MemberChange, PublishOptions
from beaconfire.model.events import InternalError
from beaconfire.model.publication import ClientInfo
from tests.fakes.engine import NoCallbacks

from .support import TIMEOUT_S, Setup, hang, raise_, return_, run, settle

ANN = ClientInfo("ann", "c1")


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


def test_a_call_whose_coroutine_is_closed_leaves_no_deadline() -> None:
    """A coroutine is closed if its event loop ends before it."""

    async def scenario(s: Setup) -> None:
        call = s.guard.call("publish", hang())
        call.send(None)
        call.close()
        assert len(s.guard._deadlines._running) == 0
        assert s.events.events == []

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


def test_an_engine_that_hides_the_deadline_is_late_as_well() -> None:
    """Some libraries turn a cancellation into an error of their own. This is a timeout, and no defect."""

    async def scenario(s: Setup) -> None:
        async def hide() -> None:
            try:
                await hang()
            except asyncio.CancelledError:
                raise OSError("connection closed") from None

        call = asyncio.ensure_future(s.guard.call("publish", hide()))
        await settle()
        s.advance(TIMEOUT_S)
        with pytest.raises(EngineUnavailable, match="within 3s"):
            await call
        assert s.failures == [("publish", "timeout")]
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
    """Each method of the four parts runs under its own name, and its result and arguments pass unchanged."""

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
        for call in (engine.migration.status(), engine.migration.set_read_percent(1.0), engine.migration.verify()):
            with pytest.raises(CommandError, match="not available"):
                await call
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
