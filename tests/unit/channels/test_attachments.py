"""Attaching to and detaching from channels at the broker, under concurrency."""

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
from tests.fakes.engine import ControlledBroker, ManualCalls
from tests.unit.kit import run, settle

DETACH_DELAY_S = 1.0


class AttachmentsHarness:
    """Attachments with a broker that the test controls. `needed` are the channels with subscribers."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.calls = ManualCalls()
        self.needed: set[str] = set()
        self.errors: list[BaseException] = []
        self.background = BackgroundTasks(self.errors.append)
        engine = memory_engine(self.clock)
        run(engine.broker.start(_IgnoredEvents()))
        broker = ControlledBroker(self.calls, engine.broker)
        self.attachments = Attachments(broker, self.timers, self.background, DETACH_DELAY_S, self.needed.__contains__)

    def release(self, channel: str = "news") -> None:
        self.needed.discard(channel)
        self.attachments.release(channel)

    def advance_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()


class _IgnoredEvents(NoEvents):
    def on_publication(self, *_: object) -> None: ...

    def on_join(self, *_: object) -> None: ...

    def on_leave(self, *_: object) -> None: ...

    def on_link_down(self, *_: object) -> None: ...

    def on_link_up(self, *_: object) -> None: ...


def run_scenario(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 5))


def test_channel_is_attached_once() -> None:
    """Later subscribers make no call to the broker."""
    harness = AttachmentsHarness()
    harness.needed.add("news")
    for _ in range(3):
        run(harness.attachments.attach("news"))
    assert harness.calls.completed == ["attach news"]
    assert len(harness.attachments) == 1


def test_every_subscriber_waits_for_the_same_attach() -> None:
    """A subscriber that does not wait for an attach in flight could miss publications."""

    async def scenario() -> None:
        harness = AttachmentsHarness()
        harness.needed.add("news")
        harness.calls.hold("attach")
        tasks = [asyncio.ensure_future(harness.attachments.attach("news")) for _ in range(3)]
        await settle()
        assert not any(task.done() for task in tasks)
        harness.calls.release("attach")
        await asyncio.gather(*tasks)
        assert harness.calls.completed == ["attach news"]

    run_scenario(scenario())


def test_failed_attach_fails_one_subscriber_and_the_next_one_attaches_again() -> None:
    """The next subscriber may have waited for the same attach."""

    async def scenario() -> None:
        harness = AttachmentsHarness()
        harness.needed.add("news")
        harness.calls.hold("attach")
        harness.calls.fail_next("attach", OSError("no link"))
        first, second = (asyncio.ensure_future(harness.attachments.attach("news")) for _ in range(2))
        await settle()
        harness.calls.release("attach")
        with pytest.raises(OSError, match="no link"):
            await first
        await second
        assert harness.calls.completed == ["attach news"]
        assert len(harness.attachments) == 1

    run_scenario(scenario())


def test_channel_without_subscribers_is_detached_after_the_delay() -> None:
    """The channel is detached once, and not earlier."""
    harness = AttachmentsHarness()
    harness.needed.add("news")
    run(harness.attachments.attach("news"))
    harness.release()
    harness.advance_time(DETACH_DELAY_S - 0.01)
    assert harness.calls.completed == ["attach news"]
    harness.advance_time(0.01)
    assert harness.calls.completed == ["attach news", "detach news"]
    assert len(harness.attachments) == 0
    assert len(harness.timers) == 0


def test_channel_with_a_new_subscriber_stays_attached() -> None:
    """A subscriber that reconnects causes no call to the broker."""
    harness = AttachmentsHarness()
    harness.needed.add("news")
    run(harness.attachments.attach("news"))
    harness.release()
    harness.advance_time(DETACH_DELAY_S / 2)
    harness.needed.add("news")
    run(harness.attachments.attach("news"))
    harness.advance_time(DETACH_DELAY_S)
    assert harness.calls.completed == ["attach news"]
    harness.release()
    harness.advance_time(DETACH_DELAY_S)
    assert harness.calls.completed == ["attach news", "detach news"]


def test_every_channel_has_its_own_delay() -> None:
    """All channels share one timer, and none is detached too early."""
    harness = AttachmentsHarness()
    for channel in ("a", "b"):
        harness.needed.add(channel)
        run(harness.attachments.attach(channel))
    harness.release("a")
    harness.advance_time(0.4)
    harness.release("b")
    assert len(harness.timers) == 1
    harness.advance_time(0.6)
    assert harness.calls.completed[2:] == ["detach a"]
    harness.advance_time(0.4)
    assert harness.calls.completed[2:] == ["detach a", "detach b"]


def test_subscriber_during_a_detach_attaches_again() -> None:
    """The broker gets detach and then attach, and the subscriber waits for both."""

    async def scenario() -> None:
        harness = AttachmentsHarness()
        harness.needed.add("news")
        await harness.attachments.attach("news")
        harness.calls.hold("detach")
        harness.release()
        harness.advance_time(DETACH_DELAY_S)
        harness.needed.add("news")
        attach = asyncio.ensure_future(harness.attachments.attach("news"))
        await settle()
        assert not attach.done()
        harness.calls.release("detach")
        await attach
        assert harness.calls.completed == ["attach news", "detach news", "attach news"]
        await harness.background.wait_idle()
        assert len(harness.attachments) == 1

    run_scenario(scenario())


def test_new_subscriber_prevents_a_waiting_detach() -> None:
    """Whether the channel has subscribers is checked again under the lock."""

    async def scenario() -> None:
        harness = AttachmentsHarness()
        harness.needed.add("news")
        harness.calls.hold("attach")
        first = asyncio.ensure_future(harness.attachments.attach("news"))
        await settle()
        harness.release()
        harness.advance_time(DETACH_DELAY_S)
        harness.needed.add("news")
        second = asyncio.ensure_future(harness.attachments.attach("news"))
        await settle()
        harness.calls.release("attach")
        await asyncio.gather(first, second)
        await harness.background.wait_idle()
        assert harness.calls.completed == ["attach news"]
        assert len(harness.attachments) == 1

    run_scenario(scenario())


def test_channel_is_detached_if_its_subscriber_ends_during_a_slow_attach() -> None:
    """The attach takes longer than the delay, and there is no subscriber when it completes."""

    async def scenario() -> None:
        harness = AttachmentsHarness()
        harness.needed.add("news")
        harness.calls.hold("attach")
        attach = asyncio.ensure_future(harness.attachments.attach("news"))
        await settle()
        harness.release()
        harness.advance_time(DETACH_DELAY_S)
        harness.calls.release("attach")
        await attach
        await harness.background.wait_idle()
        assert harness.calls.completed == ["attach news", "detach news"]
        assert len(harness.attachments) == 0

    run_scenario(scenario())


def test_failed_detach_is_reported_and_the_next_subscriber_attaches() -> None:
    """Attach is idempotent at the broker."""
    harness = AttachmentsHarness()
    harness.needed.add("news")
    run(harness.attachments.attach("news"))
    harness.calls.fail_next("detach", OSError("no link"))
    harness.release()
    harness.advance_time(DETACH_DELAY_S)
    assert [str(error) for error in harness.errors] == ["no link"]
    harness.needed.add("news")
    run(harness.attachments.attach("news"))
    assert harness.calls.completed == ["attach news", "attach news"]


def test_many_channels_leave_nothing_behind() -> None:
    """Locks, delays and timers are dropped with the channels."""
    harness = AttachmentsHarness()
    for number in range(1000):
        channel = f"channel{number}"
        harness.needed.add(channel)
        run(harness.attachments.attach(channel))
        harness.release(channel)
        harness.advance_time(0.01)
    harness.advance_time(DETACH_DELAY_S)
    assert len(harness.attachments) == 0
    assert len(harness.timers) == 0
    assert harness.attachments._locks == {}
    assert not harness.attachments._lingering
