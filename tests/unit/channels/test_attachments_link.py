"""Attachments while the link of the broker is lost, and when it is back."""

from __future__ import annotations

import asyncio

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


@pytest.mark.parametrize("channels", [None, ["news"]])
def test_attach_that_has_not_started_waits_for_the_link(channels: list[str] | None) -> None:
    """The broker is not called while the link is lost."""

    async def scenario() -> None:
        harness = AttachmentsHarness()
        harness.needed.add("news")
        waiting = asyncio.ensure_future(harness.attachments.attach("news"))
        await asyncio.sleep(0)
        harness.attachments.link_down(channels)
        await settle()
        assert harness.calls.completed == []
        harness.attachments.link_up(channels)
        await waiting
        assert harness.calls.completed == ["attach news"]

    run_scenario(scenario())
