"""Engines whose calls a test or random numbers control."""

from __future__ import annotations

import asyncio
import random

import pytest
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.timers import Timers
from beaconfire.engines.memory import memory_engine
from beaconfire.engines.port import HistoryOptions, MemberChange, PublishOptions
from beaconfire.model.publication import ClientInfo
from beaconfire.testing import ManualCalls, RandomCalls, control_calls
from tests.fakes.engine import NoCallbacks

ANN, BOB = ClientInfo("ann", "c1"), ClientInfo("bob", "c2")
HISTORY = HistoryOptions(size=10, ttl_s=60.0)
KEPT = PublishOptions(history=HISTORY)


async def settle() -> None:
    """Lets every task continue until it waits for something that the test controls."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_calls_are_recorded_with_their_subject() -> None:
    """Channels, clients, changes and nodes; not the calls that start and stop the engine."""

    async def scenario() -> None:
        calls = ManualCalls()
        engine = control_calls(memory_engine(ManualClock()), calls)
        await engine.broker.start(NoCallbacks())
        await engine.control.start("node", NoCallbacks())
        await engine.broker.attach(["a", "b"])
        await engine.broker.announce("a", [MemberChange(True, ANN), MemberChange(False, BOB)])
        await engine.broker.positions({"a": HISTORY, "b": HISTORY})
        await engine.presence.add("a", [ANN, BOB], 60.0)
        await engine.presence.refresh("a", ["c1"], 60.0)
        await engine.control.send("node", b"")
        await engine.control.broadcast(b"")
        await engine.control.stop()
        await engine.broker.stop()
        assert calls.completed == [
            "attach a b",
            "announce a join c1 leave c2",
            "positions a b",
            "presence_add a c1 c2",
            "presence_refresh a c1",
            "control_send node",
            "control_broadcast ",
        ]

    asyncio.run(scenario())


def test_text_in_place_of_a_list_of_names_is_a_mistake() -> None:
    """A str is a sequence of one-letter names, so the type checker does not find this."""

    async def scenario() -> None:
        engine = control_calls(memory_engine(ManualClock()), ManualCalls())
        await engine.broker.start(NoCallbacks())
        for wrong in (
            engine.broker.attach("news"),
            engine.broker.detach("news"),
            engine.presence.remove("news", "c1"),
            engine.presence.refresh("news", "c1", 1.0),
        ):
            with pytest.raises(AssertionError):
                await wrong

    asyncio.run(scenario())


@pytest.mark.parametrize("after", [False, True])
def test_a_call_fails_before_or_after_its_effect(after: bool) -> None:
    """Only the next call of this name fails."""

    async def scenario() -> None:
        calls = ManualCalls()
        engine = control_calls(memory_engine(ManualClock()), calls)
        calls.fail_next("publish", EngineUnavailable("no"), after=after)
        with pytest.raises(EngineUnavailable):
            await engine.broker.publish("a", Raw(b"1"), KEPT)
        await engine.broker.publish("a", Raw(b"2"), KEPT)
        page = await engine.broker.history("a", HISTORY, -1)
        assert [bytes(publication.data) for publication in page.publications] == ([b"1", b"2"] if after else [b"2"])

    asyncio.run(scenario())


@pytest.mark.parametrize("after", [False, True])
def test_a_call_that_is_held_back_can_be_cancelled(after: bool) -> None:
    """Other calls go on. After the release, calls work again."""

    async def scenario() -> None:
        calls = ManualCalls()
        engine = control_calls(memory_engine(ManualClock()), calls)
        calls.hold("publish", after=after)
        held = asyncio.ensure_future(engine.broker.publish("a", Raw(b"1"), KEPT))
        await settle()
        page = await engine.broker.history("a", HISTORY, -1)
        assert len(page.publications) == (1 if after else 0)
        assert not held.done()
        held.cancel()
        await settle()
        assert held.cancelled()
        calls.release("publish", after=after)
        assert (await engine.broker.publish("a", Raw(b"2"), KEPT)).position.offset == (2 if after else 1)

    asyncio.run(scenario())


def test_random_calls_take_their_time_and_fail_at_their_rate() -> None:
    """Each call takes the delay. Failures come before and after the effect, and are the same for the same seed."""

    async def publish_many(seed: int) -> list[str]:
        clock = ManualClock()
        timers = Timers(clock)
        calls = RandomCalls(timers, random.Random(seed).random, delay_s=0.05, failure_rate=0.05)
        memory = memory_engine(clock)
        engine = control_calls(memory, calls)
        await engine.broker.start(NoCallbacks())
        outcomes: list[str] = []
        large = PublishOptions(history=HistoryOptions(size=1000, ttl_s=600.0))
        for _ in range(1000):
            task = asyncio.ensure_future(engine.broker.publish("a", Raw(b"{}"), large))
            started_s = clock.now_s()
            while not task.done():
                await settle()
                clock.advance(0.025)
                timers.run_due()
            error = task.exception()
            assert error is None or isinstance(error, EngineUnavailable)
            if error is None:
                assert clock.now_s() - started_s >= 0.05
            outcomes.append("failed" if error else "ok")
        stored = (await memory.broker.history("a", HISTORY, 0)).position.offset
        assert outcomes.count("ok") < stored < 1000, "some of the failed calls had an effect, some had none"
        assert calls.failures == outcomes.count("failed")
        assert 25 <= outcomes.count("failed") <= 80
        return outcomes

    async def scenario() -> None:
        assert await publish_many(1) == await publish_many(1) != await publish_many(2)

    asyncio.run(scenario())


def test_random_calls_hang_at_their_rate() -> None:
    """A call that hangs waits until it is cancelled."""

    async def scenario() -> None:
        timers = Timers(ManualClock())
        calls = RandomCalls(timers, random.Random(1).random, hang_rate=1.0)
        engine = control_calls(memory_engine(timers.clock), calls)
        await engine.broker.start(NoCallbacks())
        task = asyncio.ensure_future(engine.broker.ping())
        await settle()
        assert (task.done(), calls.failures) == (False, 1)
        task.cancel()
        await settle()
        assert task.cancelled()
        await engine.broker.stop()

    asyncio.run(scenario())
