"""Attaching to and detaching from channels at the broker, under concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from beaconfire.base.backoff import Backoff
from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timers
from beaconfire.channels.attachments import Attachments
from beaconfire.engines.memory import memory_engine
from beaconfire.model.events import NoEvents
from tests.fakes.engine import ControlledBroker, ManualCalls
from tests.unit.kit import run, settle

DETACH_DELAY_S = 1.0
TIMEOUT_S = 3.0


class AttachmentsHarness:
    """Attachments with a broker that the test controls. `needed` are the channels with subscribers."""

    def __init__(self, suspends: bool = True) -> None:
        """`suspends` as in `Engine`: without it, tests need no event loop."""
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.calls = ManualCalls()
        self.needed: set[str] = set()
        self.errors: list[BaseException] = []
        self.background = BackgroundTasks(self.errors.append, suspends)
        engine = memory_engine(self.clock)
        run(engine.broker.start(_IgnoredEvents()))
        broker = ControlledBroker(self.calls, engine.broker)
        self.attachments = Attachments(
            broker,
            self.timers,
            self.background,
            Backoff(lambda: 0.5),
            DETACH_DELAY_S,
            TIMEOUT_S,
            self.needed.__contains__,
        )

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


def assert_nothing_is_left(harness: AttachmentsHarness) -> None:
    """No channel is attached, and no table has an entry."""
    attachments = harness.attachments
    tables = (attachments._attached, attachments._unsure, attachments._wanted, attachments._queue)
    assert not any(tables)
    assert not any((attachments._calling, attachments._voided, attachments._lingering, attachments._deadlines))


def run_scenario(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 5))


def test_channel_is_attached_once() -> None:
    """Later subscribers make no call to the broker."""
    harness = AttachmentsHarness(suspends=False)
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


def test_failed_attach_fails_all_that_wait_and_the_next_one_attaches_again() -> None:
    """Nobody waits for a repetition: the clients repeat their commands."""

    async def scenario() -> None:
        harness = AttachmentsHarness()
        harness.needed.add("news")
        harness.calls.hold("attach")
        harness.calls.fail_next("attach", EngineUnavailable("no link"))
        waiting = [asyncio.ensure_future(harness.attachments.attach("news")) for _ in range(2)]
        await settle()
        harness.calls.release("attach")
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, EngineUnavailable)
        await harness.attachments.attach("news")
        assert harness.calls.completed == ["attach news"]
        assert len(harness.attachments) == 1

    run_scenario(scenario())


def test_cancelled_subscriber_does_not_disturb_the_others() -> None:
    """The attach goes on."""

    async def scenario() -> None:
        harness = AttachmentsHarness()
        harness.needed.add("news")
        harness.calls.hold("attach")
        first, second = (asyncio.ensure_future(harness.attachments.attach("news")) for _ in range(2))
        await settle()
        first.cancel()
        await settle()
        harness.calls.release("attach")
        await second
        assert harness.calls.completed == ["attach news"]

    run_scenario(scenario())


def test_channels_that_ask_in_the_same_turn_share_a_call() -> None:
    """A call has at most 512 channels, and at most eight calls are on their way."""

    async def scenario() -> None:
        harness = AttachmentsHarness()
        names = [f"c{number}" for number in range(10 * 512 + 1)]
        harness.needed.update(names)
        harness.calls.hold("attach")
        waiting = [asyncio.ensure_future(harness.attachments.attach(name)) for name in names]
        await settle()
        assert len(harness.background) == 8
        harness.calls.release("attach")
        await asyncio.gather(*waiting)
        sizes = [len(call.split()) - 1 for call in harness.calls.completed]
        assert sizes == [512] * 10 + [1]

    run_scenario(scenario())


def test_channel_without_subscribers_is_detached_after_the_delay() -> None:
    """The channel is detached once, and not earlier."""
    harness = AttachmentsHarness(suspends=False)
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
    harness = AttachmentsHarness(suspends=False)
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
    harness = AttachmentsHarness(suspends=False)
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
        harness.advance_time(DETACH_DELAY_S)
        await harness.background.wait_idle()
        assert harness.calls.completed == ["attach news", "detach news"]
        assert len(harness.attachments) == 0

    run_scenario(scenario())


def test_failed_detach_is_reported_and_repeated_until_it_succeeds() -> None:
    """Otherwise the broker would stay attached for ever. The delay doubles with each failure."""
    harness = AttachmentsHarness(suspends=False)
    harness.needed.add("news")
    run(harness.attachments.attach("news"))
    for error in ("first", "second"):
        harness.calls.fail_next("detach", OSError(error))
        if error == "first":
            harness.release()
            harness.advance_time(DETACH_DELAY_S)
        else:
            harness.advance_time(0.2)
    assert [str(error) for error in harness.errors] == ["first", "second"]
    harness.advance_time(0.2)
    assert harness.calls.completed == ["attach news"]
    harness.advance_time(0.2)
    assert harness.calls.completed == ["attach news", "detach news"]
    harness.advance_time(100)
    assert_nothing_is_left(harness)


def test_attach_after_a_failed_detach_wins() -> None:
    """The detach is not repeated while the channel has a subscriber."""
    harness = AttachmentsHarness(suspends=False)
    harness.needed.add("news")
    run(harness.attachments.attach("news"))
    harness.calls.fail_next("detach", OSError("no link"))
    harness.release()
    harness.advance_time(DETACH_DELAY_S)
    harness.needed.add("news")
    run(harness.attachments.attach("news"))
    harness.advance_time(100)
    assert harness.calls.completed == ["attach news", "attach news"]
    assert len(harness.attachments) == 1


def test_attach_that_has_failed_is_detached() -> None:
    """The broker may be attached although the call has failed."""
    harness = AttachmentsHarness(suspends=False)
    harness.needed.add("news")
    harness.calls.fail_next("attach", EngineUnavailable("no link"))
    with pytest.raises(EngineUnavailable):
        run(harness.attachments.attach("news"))
    harness.release()
    harness.advance_time(DETACH_DELAY_S)
    assert harness.calls.completed == ["detach news"]
    assert_nothing_is_left(harness)


# --- the link


def test_attachments_are_void_when_the_link_is_lost() -> None:
    """The next subscriber waits for the link, and attaches again."""

    async def scenario() -> None:
        harness = AttachmentsHarness()
        harness.needed.update(("news", "other"))
        await harness.attachments.attach("news")
        await harness.attachments.attach("other")
        harness.attachments.link_down(["news"])
        assert not harness.attachments.is_attached("news")
        assert harness.attachments.is_attached("other")
        waiting = asyncio.ensure_future(harness.attachments.attach("news"))
        await settle()
        assert not waiting.done()
        harness.attachments.link_up(["news"])
        await waiting
        assert harness.calls.completed == ["attach news", "attach other", "attach news"]

    run_scenario(scenario())


def test_attach_gives_up_if_the_link_is_not_back_in_time() -> None:
    """The client may try again."""

    async def scenario() -> None:
        harness = AttachmentsHarness()
        harness.needed.add("news")
        harness.attachments.link_down(None)
        waiting = asyncio.ensure_future(harness.attachments.attach("news"))
        await settle()
        harness.advance_time(1)
        later = asyncio.ensure_future(harness.attachments.attach("other"))
        await settle()
        harness.advance_time(TIMEOUT_S - 1)
        with pytest.raises(EngineUnavailable, match="no answer within 3 s"):
            await waiting
        assert not later.done()
        harness.attachments.link_up(None)
        await later
        assert harness.calls.completed == ["attach other"]
        harness.release("other")
        harness.advance_time(TIMEOUT_S)
        await harness.background.wait_idle()
        assert_nothing_is_left(harness)

    run_scenario(scenario())


@pytest.mark.parametrize("channels", [None, ["news"]])
def test_attach_on_its_way_does_not_count_if_the_link_was_lost(channels: list[str] | None) -> None:
    """Its effect may have been before the loss. The subscriber waits for another attach."""

    async def scenario() -> None:
        harness = AttachmentsHarness()
        harness.needed.add("news")
        harness.calls.hold("attach")
        waiting = asyncio.ensure_future(harness.attachments.attach("news"))
        await settle()
        harness.attachments.link_down(channels)
        harness.attachments.link_up(channels)
        harness.calls.release("attach")
        await waiting
        assert harness.calls.completed == ["attach news", "attach news"]

    run_scenario(scenario())


def test_attach_that_nobody_waits_for_any_more_is_detached() -> None:
    """The subscribers were told that the attach takes too long, or that the link was lost, and have gone."""

    async def scenario(is_lost: bool) -> None:
        harness = AttachmentsHarness()
        harness.calls.hold("attach")
        waiting = asyncio.ensure_future(harness.attachments.attach("news"))
        await settle()
        if is_lost:
            harness.attachments.link_down(None)
        harness.advance_time(TIMEOUT_S)
        with pytest.raises(EngineUnavailable):
            await waiting
        harness.calls.release("attach")
        await settle()
        harness.advance_time(DETACH_DELAY_S)
        await harness.background.wait_idle()
        assert harness.calls.completed == ["attach news", "detach news"]
        assert_nothing_is_left(harness)

    run_scenario(scenario(False))
    run_scenario(scenario(True))


def test_detach_that_fails_with_the_link_is_not_repeated() -> None:
    """Nothing is attached any more."""

    async def scenario() -> None:
        harness = AttachmentsHarness()
        harness.needed.add("news")
        await harness.attachments.attach("news")
        harness.calls.hold("detach")
        harness.calls.fail_next("detach", EngineUnavailable("no link"))
        harness.release()
        harness.advance_time(DETACH_DELAY_S)
        await settle()
        harness.attachments.link_down(["news", "other"])
        harness.calls.release("detach")
        await harness.background.wait_idle()
        harness.advance_time(100)
        assert harness.calls.completed == ["attach news"]
        assert_nothing_is_left(harness)

    run_scenario(scenario())


def test_engine_that_never_suspends_does_not_wait_for_its_link() -> None:
    """The caller cannot wait in one step."""
    harness = AttachmentsHarness(suspends=False)
    harness.attachments.link_down(None)
    with pytest.raises(EngineUnavailable, match="link"):
        run(harness.attachments.attach("news"))


@pytest.mark.parametrize("suspends", [False, True])
def test_many_channels_are_attached_together(suspends: bool) -> None:
    """Channels that are attached already are not attached again. A failure is not raised."""

    async def scenario() -> None:
        harness = AttachmentsHarness(suspends)
        await harness.attachments.attach_all(["a", "b"])
        await harness.attachments.attach_all(["a", "b"])
        await harness.attachments.attach_all(["b", "c"])
        assert harness.calls.completed == ["attach a b", "attach c"]
        harness.attachments.link_down(["a"])
        harness.attachments.link_up(["a"])
        harness.calls.fail_next("attach", EngineUnavailable("no link"))
        await harness.attachments.attach_all(["a", "b"])
        assert [name for name in "abc" if harness.attachments.is_attached(name)] == ["b", "c"]

    run_scenario(scenario())


def test_many_channels_leave_nothing_behind() -> None:
    """Locks, delays and timers are dropped with the channels."""
    harness = AttachmentsHarness(suspends=False)
    for number in range(1000):
        channel = f"channel{number}"
        harness.needed.add(channel)
        run(harness.attachments.attach(channel))
        harness.release(channel)
        harness.advance_time(0.01)
    harness.advance_time(DETACH_DELAY_S)
    assert len(harness.attachments) == 0
    assert len(harness.timers) == 0
    assert_nothing_is_left(harness)
