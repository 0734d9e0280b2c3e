"""Periodic work of a session: presence and positions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.grants import SubscriptionGrant
from tests.unit.kit import RECOVERABLE, HarnessClient, NodeHarness, run, settle
from tests.unit.session.operations.support import lose_publication

PRESENCE = ChannelOptions(allow_subscribe_for_client=True, presence=True)
SHORT_INTERVALS: dict[str, Any] = {
    "ping_interval": Seconds(0),
    "presence_update_interval": Seconds(10),
    "channel_position_check_delay": Seconds(20),
}


def unsubscribed(client: HarnessClient) -> list[int]:
    """The codes of the unsubscribe pushes."""
    return [push["unsubscribe"]["code"] for push in client.receive_pushes()]


def test_presence_is_refreshed_while_the_session_is_open() -> None:
    """An entry lives for 2.2 intervals, so one refresh may fail."""
    harness = NodeHarness(PRESENCE, **SHORT_INTERVALS)
    client = harness.connect("ann", "news")
    for _ in range(20):
        harness.advance_time(10)
        assert harness.present_clients("news") == {client.id}
    run(harness.memory.presence.remove("news", [client.id]))
    harness.advance_time(10)
    assert harness.present_clients("news") == {client.id}


def test_presence_expires_without_refresh() -> None:
    """An entry expires after 2.2 intervals, for example if its node has died."""
    harness = NodeHarness(PRESENCE, **SHORT_INTERVALS)
    client = harness.connect("ann", "news")
    client.session.keepalive.cancel()
    harness.advance_time(21.5)
    assert harness.present_clients("news") == {client.id}
    harness.advance_time(0.5)
    assert harness.present_clients("news") == set()


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.99])
def test_silent_loss_is_found_by_comparing_positions(chance: float) -> None:
    """The first comparison sees the new top, the second one sees that the position has not reached it."""
    harness = NodeHarness(RECOVERABLE, **SHORT_INTERVALS)
    harness.random_value = chance
    client = harness.connect("ann", "news")
    lose_publication(harness, publish_next=False)
    harness.advance_time(20)
    assert unsubscribed(client) == []
    harness.advance_time(60)
    assert unsubscribed(client) == [2500]
    result = client.request("subscribe", channel="news", recover=True, epoch="epoch1")
    assert [publication["data"] for publication in result["publications"]] == ["lost"]


def test_silent_loss_of_a_server_side_subscription_ends_the_session_with_3010() -> None:
    """The client must connect again."""
    harness = NodeHarness(RECOVERABLE, **SHORT_INTERVALS)
    client = harness.connect("ann", channels={"news": SubscriptionGrant()})
    lose_publication(harness, publish_next=False)
    harness.advance_time(80)
    assert client.disconnect_code == 3010


def test_new_epoch_is_found_by_the_first_comparison() -> None:
    """The client then recovers."""
    harness = NodeHarness(RECOVERABLE, **SHORT_INTERVALS)
    client = harness.connect("ann", "news")
    subscription = client.session.subscriptions["news"]
    subscription.epoch = "lost"
    harness.advance_time(30)
    assert unsubscribed(client) == [2500]


def test_busy_and_idle_channels_have_no_gap() -> None:
    """The number of comparisons does not matter."""
    harness = NodeHarness(RECOVERABLE, **SHORT_INTERVALS)
    client = harness.connect("ann", "news")
    for number in range(60):
        if number < 30:
            harness.publish("news", number)
        harness.advance_time(5)
    assert [push["pub"]["data"] for push in client.receive_pushes()] == list(range(30))


def test_positions_are_compared_as_often_as_configured() -> None:
    """A delay of 0 switches the comparison off."""
    for delay, expected in ((20, range(18, 27)), (0, range(1))):
        harness = NodeHarness(RECOVERABLE, **{**SHORT_INTERVALS, "channel_position_check_delay": Seconds(delay)})
        harness.connect("ann", "news")
        before = len(harness.calls.completed)
        harness.advance_time(400)
        asked = [call for call in harness.calls.completed[before:] if call == "history news"]
        assert len(asked) in expected, len(asked)


def test_positions_are_compared_without_presence_updates() -> None:
    """The two intervals are independent."""
    harness = NodeHarness(RECOVERABLE, **{**SHORT_INTERVALS, "presence_update_interval": Seconds(0)})
    client = harness.connect("ann", "news")
    lose_publication(harness, publish_next=False)
    harness.advance_time(80)
    assert unsubscribed(client) == [2500]


def test_upkeep_stops_if_the_session_ends() -> None:
    """No presence entry stays, not even the one that is being refreshed."""

    async def scenario() -> None:
        harness = NodeHarness(PRESENCE, **SHORT_INTERVALS)
        client = harness.connect("ann", "a", "b")
        harness.calls.hold("presence_add")
        harness.advance_time(10)
        await settle()
        client.drop_connection()
        harness.calls.release("presence_add")
        await settle()
        assert harness.present_clients("a") | harness.present_clients("b") == set()
        harness.advance_time(30)
        assert len(harness.timers) == 0

    asyncio.run(scenario())


def test_subscription_that_ends_during_its_comparison_has_no_gap() -> None:
    """The result of the comparison is ignored."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE, **SHORT_INTERVALS)
        client = harness.connect("ann", "news")
        client.session.subscriptions["news"].epoch = "lost"
        harness.calls.hold("history")
        harness.advance_time(30)
        await settle()
        client.request("unsubscribe", channel="news")
        harness.calls.release("history")
        await settle()
        assert client.receive() == []

    asyncio.run(scenario())


def test_failing_engine_does_not_end_the_session() -> None:
    """The failure is reported, and upkeep runs again after its interval."""
    harness = NodeHarness(PRESENCE, **SHORT_INTERVALS)
    harness.recorder.expects_errors = True
    client = harness.connect("ann", "news")
    harness.calls.fail_next("presence_add", OSError("no link"))
    harness.advance_time(10)
    assert client.disconnect_code == 0
    harness.advance_time(20)
    assert harness.present_clients("news") == {client.id}
