"""Which channels the node listens to at the broker, under concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timers
from beaconfire.channels.attachments import Attachments
from beaconfire.engines.memory import memory_engine
from beaconfire.model.events import NoEvents
from tests.unit.kit import SlowBroker, Stops, run, settle

LINGER_S = 1.0


class Stage:
    """Attachments before a broker that may be held back; `needed` is who has subscribers."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.stops = Stops()
        self.needed: set[str] = set()
        self.errors: list[BaseException] = []
        self.background = BackgroundTasks(self.errors.append)
        engine = memory_engine(self.clock)
        run(engine.broker.start(_Deaf()))
        broker = SlowBroker(self.stops, engine)
        self.attachments = Attachments(broker, self.timers, self.background, LINGER_S, self.needed.__contains__)

    def leave(self, channel: str = "news") -> None:
        self.needed.discard(channel)
        self.attachments.release(channel)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()


class _Deaf(NoEvents):
    def on_publication(self, *_: object) -> None: ...

    def on_join(self, *_: object) -> None: ...

    def on_leave(self, *_: object) -> None: ...

    def on_link_lost(self, *_: object) -> None: ...


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 5))


def test_a_channel_is_attached_once() -> None:
    """Later subscribers find it attached and ask nobody."""
    stage = Stage()
    stage.needed.add("news")
    for _ in range(3):
        run(stage.attachments.attach("news"))
    assert stage.stops.passed == ["attach news"]
    assert len(stage.attachments) == 1


def test_every_subscriber_waits_for_the_same_attach() -> None:
    """One that trusted an attach still in flight could miss publications."""

    async def scenario() -> None:
        stage = Stage()
        stage.needed.add("news")
        stage.stops.hold("attach")
        tasks = [asyncio.ensure_future(stage.attachments.attach("news")) for _ in range(3)]
        await settle()
        assert not any(task.done() for task in tasks)
        stage.stops.release("attach")
        await asyncio.gather(*tasks)
        assert stage.stops.passed == ["attach news"]

    play(scenario())


def test_a_failed_attach_is_the_first_subscribers_and_the_next_one_tries_afresh() -> None:
    """Even if the next one was waiting for that very attach."""

    async def scenario() -> None:
        stage = Stage()
        stage.needed.add("news")
        stage.stops.hold("attach")
        stage.stops.fail_next("attach", OSError("no link"))
        first, second = (asyncio.ensure_future(stage.attachments.attach("news")) for _ in range(2))
        await settle()
        stage.stops.release("attach")
        with pytest.raises(OSError, match="no link"):
            await first
        await second
        assert stage.stops.passed == ["attach news"]
        assert len(stage.attachments) == 1

    play(scenario())


def test_a_channel_nobody_came_back_to_is_detached_after_a_while() -> None:
    """Not before the delay is over, and then once."""
    stage = Stage()
    stage.needed.add("news")
    run(stage.attachments.attach("news"))
    stage.leave()
    stage.pass_time(LINGER_S - 0.01)
    assert stage.stops.passed == ["attach news"]
    stage.pass_time(0.01)
    assert stage.stops.passed == ["attach news", "detach news"]
    assert len(stage.attachments) == 0
    assert len(stage.timers) == 0


def test_a_channel_somebody_came_back_to_stays_attached() -> None:
    """A subscriber that reconnects causes nothing at the broker."""
    stage = Stage()
    stage.needed.add("news")
    run(stage.attachments.attach("news"))
    stage.leave()
    stage.pass_time(LINGER_S / 2)
    stage.needed.add("news")
    run(stage.attachments.attach("news"))
    stage.pass_time(LINGER_S)
    assert stage.stops.passed == ["attach news"]
    stage.leave()
    stage.pass_time(LINGER_S)
    assert stage.stops.passed == ["attach news", "detach news"]


def test_every_channel_lingers_for_its_own_time() -> None:
    """They share one timer, and none is detached early."""
    stage = Stage()
    for channel in ("a", "b"):
        stage.needed.add(channel)
        run(stage.attachments.attach(channel))
    stage.leave("a")
    stage.pass_time(0.4)
    stage.leave("b")
    assert len(stage.timers) == 1
    stage.pass_time(0.6)
    assert stage.stops.passed[2:] == ["detach a"]
    stage.pass_time(0.4)
    assert stage.stops.passed[2:] == ["detach a", "detach b"]


def test_who_comes_while_the_broker_detaches_attaches_anew() -> None:
    """The order at the broker is detach, then attach; the subscriber waits for both."""

    async def scenario() -> None:
        stage = Stage()
        stage.needed.add("news")
        await stage.attachments.attach("news")
        stage.stops.hold("detach")
        stage.leave()
        stage.pass_time(LINGER_S)
        stage.needed.add("news")
        arrival = asyncio.ensure_future(stage.attachments.attach("news"))
        await settle()
        assert not arrival.done()
        stage.stops.release("detach")
        await arrival
        assert stage.stops.passed == ["attach news", "detach news", "attach news"]
        await stage.background.wait_idle()
        assert len(stage.attachments) == 1

    play(scenario())


def test_who_comes_while_a_detach_waits_for_its_turn_prevents_it() -> None:
    """Whether anybody needs the channel is asked again under the lock."""

    async def scenario() -> None:
        stage = Stage()
        stage.needed.add("news")
        stage.stops.hold("attach")
        first = asyncio.ensure_future(stage.attachments.attach("news"))
        await settle()
        stage.leave()
        stage.pass_time(LINGER_S)
        stage.needed.add("news")
        second = asyncio.ensure_future(stage.attachments.attach("news"))
        await settle()
        stage.stops.release("attach")
        await asyncio.gather(first, second)
        await stage.background.wait_idle()
        assert stage.stops.passed == ["attach news"]
        assert len(stage.attachments) == 1

    play(scenario())


def test_who_leaves_during_a_slow_attach_leaves_nothing_attached() -> None:
    """The attach takes longer than the channel lingers, and nobody is there when it is done."""

    async def scenario() -> None:
        stage = Stage()
        stage.needed.add("news")
        stage.stops.hold("attach")
        arrival = asyncio.ensure_future(stage.attachments.attach("news"))
        await settle()
        stage.leave()
        stage.pass_time(LINGER_S)
        stage.stops.release("attach")
        await arrival
        await stage.background.wait_idle()
        assert stage.stops.passed == ["attach news", "detach news"]
        assert len(stage.attachments) == 0

    play(scenario())


def test_a_failed_detach_is_reported_and_the_next_subscriber_attaches() -> None:
    """Attaching is idempotent at the broker, so trying again is safe."""
    stage = Stage()
    stage.needed.add("news")
    run(stage.attachments.attach("news"))
    stage.stops.fail_next("detach", OSError("no link"))
    stage.leave()
    stage.pass_time(LINGER_S)
    assert [str(error) for error in stage.errors] == ["no link"]
    stage.needed.add("news")
    run(stage.attachments.attach("news"))
    assert stage.stops.passed == ["attach news", "attach news"]


def test_many_comings_and_goings_leave_nothing() -> None:
    """Gates, lingering entries and timers are gone when the channels are."""
    stage = Stage()
    for number in range(1000):
        channel = f"channel{number}"
        stage.needed.add(channel)
        run(stage.attachments.attach(channel))
        stage.leave(channel)
        stage.pass_time(0.01)
    stage.pass_time(LINGER_S)
    assert len(stage.attachments) == 0
    assert len(stage.timers) == 0
    assert stage.attachments._locks == {}
    assert not stage.attachments._lingering
