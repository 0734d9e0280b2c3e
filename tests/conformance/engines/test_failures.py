"""Calls that fail, hang or are cancelled: the caller gets a typed error within the deadline, and the engine goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import pytest
from msgspec import Raw

from beaconfire.base.errors import CommandError, EngineUnavailable, NotReplicated, StorageFull
from beaconfire.engines.interceptor import ENGINE_CALLS, EngineCall
from beaconfire.engines.port import MemberChange, PublishOptions
from beaconfire.model.events import EngineCallFailed, EngineStateChanged
from beaconfire.model.publication import ClientInfo
from beaconfire.testing.calls import LIFETIME_CALLS

from .harness import HISTORY, KEPT, NODE, TIMEOUT_S, Harness, Run

ANN, BOB = ClientInfo("ann", "c1"), ClientInfo("bob", "c2")
TTL_S = 60.0

Call: TypeAlias = Callable[[Harness], Coroutine[Any, Any, Any]]

CALLS: dict[EngineCall, Call] = {
    "ping": lambda h: h.engine.broker.ping(),
    "attach": lambda h: h.engine.broker.attach(["a"]),
    "detach": lambda h: h.engine.broker.detach(["b"]),
    "publish": lambda h: h.engine.broker.publish("a", Raw(b"1"), KEPT),
    "announce": lambda h: h.engine.broker.announce("a", [MemberChange(True, ANN)]),
    "history": lambda h: h.engine.broker.history("a", HISTORY, -1),
    "positions": lambda h: h.engine.broker.positions({"a": HISTORY}),
    "remove_history": lambda h: h.engine.broker.remove_history("a"),
    "presence_add": lambda h: h.engine.presence.add("a", [ANN], TTL_S),
    "presence_remove": lambda h: h.engine.presence.remove("a", ["c1"]),
    "presence_refresh": lambda h: h.engine.presence.refresh("a", ["c1"], TTL_S),
    "presence_members": lambda h: h.engine.presence.members("a"),
    "presence_stats": lambda h: h.engine.presence.stats("a"),
    "control_broadcast": lambda h: h.engine.control.broadcast(b"1"),
    "control_send": lambda h: h.engine.control.send(NODE, b"1"),
    "control_survey": lambda h: h.engine.control.survey(b"1", 0.0),
    "control_nodes": lambda h: h.engine.control.nodes(),
    "migration_status": lambda h: h.engine.migration.status(),
    "migration_set_read_percent": lambda h: h.engine.migration.set_read_percent(0.0),
    "migration_verify": lambda h: h.engine.migration.verify(),
}
"""One use of each call, which succeeds on every engine at any time."""

each_call = pytest.mark.parametrize("name", CALLS)
before_or_after = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])


async def settle() -> None:
    """Lets every task continue until it waits for something that the test controls."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_the_table_has_every_call() -> None:
    """Those that start and stop the engine have tests of their own."""
    assert set(CALLS) == set(ENGINE_CALLS) - LIFETIME_CALLS


@each_call
@before_or_after
def test_a_call_that_fails_raises_a_typed_error(run_failing: Run, name: EngineCall, after: bool) -> None:
    """Once. The failure is counted, and the next call works."""

    async def scenario(h: Harness) -> None:
        error = EngineUnavailable("the connection was reset")
        h.calls.fail_next(name, error, after=after)
        with pytest.raises(EngineUnavailable) as raised:
            await CALLS[name](h)
        assert raised.value is error
        await CALLS[name](h)
        assert h.events.events == [EngineCallFailed(name, "unavailable")]

    run_failing(scenario)


@each_call
@before_or_after
def test_an_unexpected_exception_becomes_a_typed_error(run_failing: Run, name: EngineCall, after: bool) -> None:
    """The detail names the call and the engine."""

    async def scenario(h: Harness) -> None:
        h.events.expects_errors = True
        h.calls.fail_next(name, ConnectionResetError("gone"), after=after)
        with pytest.raises(EngineUnavailable) as raised:
            await CALLS[name](h)
        assert name in raised.value.detail
        assert repr(h.engine.name) in raised.value.detail
        await CALLS[name](h)
        assert h.events.of(EngineCallFailed) == [EngineCallFailed(name, "defect")]

    run_failing(scenario)


@each_call
@before_or_after
def test_a_call_that_hangs_ends_at_its_deadline(run_failing: Run, name: EngineCall, after: bool) -> None:
    """Not earlier. Meanwhile other calls work, and afterwards the same call works."""

    async def scenario(h: Harness) -> None:
        h.calls.hold(name, after=after)
        call = asyncio.ensure_future(CALLS[name](h))
        await settle()
        for other, run_other in CALLS.items():
            if other != name:
                await run_other(h)
        await h.advance(TIMEOUT_S - 0.5)
        await settle()
        assert not call.done()
        await h.advance(0.5)
        with pytest.raises(EngineUnavailable):
            await call
        h.calls.release(name, after=after)
        await CALLS[name](h)
        assert h.events.events == [EngineCallFailed(name, "timeout")]

    run_failing(scenario)


@each_call
@before_or_after
def test_a_cancelled_call_disturbs_no_other_call(run_failing: Run, name: EngineCall, after: bool) -> None:
    """Another call of the same kind that waits at the same time succeeds, and nothing counts as a failure."""

    async def scenario(h: Harness) -> None:
        release = h.calls.hold(name, after=after)
        cancelled, other = (asyncio.ensure_future(CALLS[name](h)) for _ in range(2))
        await settle()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        release()
        await other
        await CALLS[name](h)
        assert h.events.events == []

    run_failing(scenario)


@pytest.mark.parametrize("error", [NotReplicated("1 of 2 replicas"), StorageFull("no space")])
def test_refusals_of_a_publish_pass_unchanged(run_failing: Run, error: CommandError) -> None:
    """They are counted, and do not mean that the engine is down."""

    async def scenario(h: Harness) -> None:
        for _ in range(5):
            h.calls.fail_next("publish", error)
            with pytest.raises(type(error)):
                await h.publish("a")
        assert h.engine.state().up is True
        assert len(h.events.of(EngineCallFailed)) == 5

    run_failing(scenario)


def test_several_failures_in_a_row_mean_down_until_an_answer(run_failing: Run) -> None:
    """A ping that nobody but the guard makes is enough to be up again."""

    async def scenario(h: Harness) -> None:
        for name in ("publish", "history", "presence_add"):
            assert h.engine.state().up is True
            h.calls.fail_next(name, EngineUnavailable(f"{name}: reset"))
            with pytest.raises(EngineUnavailable):
                await CALLS[name](h)
        down = h.engine.state()
        assert down.up is False
        assert "presence_add: reset" in down.detail
        await h.advance(1.0)
        while not h.engine.state().up:  # Only the deadline of the scenario limits the wait.
            await settle()
        assert [event.up for event in h.events.of(EngineStateChanged)] == [False, True]

    run_failing(scenario)


@pytest.mark.parametrize("name", ["start", "control_start"])
def test_a_start_that_fails_can_be_repeated(run_failing: Run, name: str) -> None:
    """The broker and the control bus start again after a stop, and after a failed start."""

    async def scenario(h: Harness) -> None:
        await h.stop()
        h.calls.fail_next(name, EngineUnavailable("refused"))
        with pytest.raises(EngineUnavailable):
            await h.start("another")
        await h.stop()
        await h.start("another")
        await h.engine.broker.attach(["a"])
        await h.publish("a", b"1")
        await h.settle()
        assert h.node.payloads("a") == [b"1"]
        assert list(await h.engine.control.nodes()) == ["another"]

    run_failing(scenario)


@before_or_after
def test_a_stop_that_hangs_does_not_stop_the_node_for_ever(run_failing: Run, after: bool) -> None:
    """It ends at its deadline, without an error for the node. An engine may have more time to stop its broker."""

    async def scenario(h: Harness) -> None:
        for name in ("control_stop", "stop"):
            h.calls.hold(name, after=after)
        for stop, extra_s in ((h.engine.control.stop, 0.0), (h.engine.broker.stop, h.engine.stop_wait_s)):
            stopping = asyncio.ensure_future(stop())
            await settle()
            assert not stopping.done()
            await h.advance(TIMEOUT_S + extra_s)
            await stopping
        for name in ("control_stop", "stop"):
            h.calls.release(name, after=after)

    run_failing(scenario)


@before_or_after
def test_an_attach_that_failed_can_be_repeated(run_failing: Run, after: bool) -> None:
    """Then each publication is announced once, and a detach ends the announcements."""

    async def scenario(h: Harness) -> None:
        h.calls.fail_next("attach", EngineUnavailable("reset"), after=after)
        with pytest.raises(EngineUnavailable):
            await h.engine.broker.attach(["a", "b"])
        await h.engine.broker.attach(["b", "a"])
        await h.publish("a", b"1")
        await h.publish("b", b"2")
        await h.settle()
        assert (h.node.payloads("a"), h.node.payloads("b")) == ([b"1"], [b"2"])
        h.calls.fail_next("detach", EngineUnavailable("reset"), after=after)
        with pytest.raises(EngineUnavailable):
            await h.engine.broker.detach(["a"])
        await h.engine.broker.detach(["a"])
        await h.settle()
        await h.publish("a", b"3")
        await h.publish("b", b"4")
        await h.settle()
        assert (h.node.payloads("a"), h.node.payloads("b")) == ([b"1"], [b"2", b"4"])

    run_failing(scenario)


@before_or_after
def test_a_publish_with_a_key_can_be_repeated_after_an_unknown_outcome(run_failing: Run, after: bool) -> None:
    """The publication is stored and announced exactly once, whether the failed call had an effect or not."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        options = PublishOptions(history=HISTORY, idempotency_key="k")
        h.calls.fail_next("publish", EngineUnavailable("reset"), after=after)
        with pytest.raises(EngineUnavailable):
            await h.publish("a", b"1", options)
        outcome = await h.publish("a", b"1", options)
        await h.settle()
        assert outcome.suppressed == ("idempotency" if after else "")
        assert await h.offsets("a") == [outcome.position.offset] == h.node.offsets("a")

    run_failing(scenario)


@before_or_after
def test_presence_changes_can_be_repeated(run_failing: Run, after: bool) -> None:
    """After an add or a remove whose outcome is not known, the same call makes the presence true."""

    async def scenario(h: Harness) -> None:
        presence = h.engine.presence
        h.calls.fail_next("presence_add", EngineUnavailable("reset"), after=after)
        with pytest.raises(EngineUnavailable):
            await presence.add("a", [ANN, BOB], TTL_S)
        await presence.add("a", [ANN, BOB], TTL_S)
        assert await presence.members("a") == {"c1": ANN, "c2": BOB}
        h.calls.fail_next("presence_remove", EngineUnavailable("reset"), after=after)
        with pytest.raises(EngineUnavailable):
            await presence.remove("a", ["c1"])
        await presence.remove("a", ["c1"])
        assert await presence.members("a") == {"c2": BOB}

    run_failing(scenario)
