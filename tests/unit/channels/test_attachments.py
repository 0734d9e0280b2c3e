"""Attaching to and detaching from channels at the broker, under concurrency."""

from __future__ import annotations

import asyncio
import gc

import pytest

from beaconfire.base.errors import EngineUnavailable
from tests.unit.channels.attaching import (
    DETACH_DELAY_S,
    TIMEOUT_S,
    AttachmentsHarness,
    assert_nothing_is_left,
    run_scenario,
)
from tests.unit.kit import run, settle


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


@pytest.mark.parametrize("is_late", [True, False])
def test_failure_that_nobody_waits_for_is_not_reported_to_the_event_loop(is_late: bool) -> None:
    """The subscriber has gone before its attach fails, or before the time for it is over."""

    async def scenario() -> None:
        reported: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
        harness = AttachmentsHarness()
        harness.needed.add("news")
        harness.calls.hold("attach")
        if not is_late:
            harness.calls.fail_next("attach", EngineUnavailable("no link"))
        waiting = asyncio.ensure_future(harness.attachments.attach("news"))
        await settle()
        waiting.cancel()
        await settle()
        if is_late:
            harness.advance_time(TIMEOUT_S)
        harness.calls.release("attach")
        await settle()
        del waiting
        gc.collect()
        assert reported == []

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
