"""Periodic work for channels: presence and positions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.publication import ClientInfo
from tests.unit.kit import OPEN, RECOVERABLE, HarnessClient, NodeHarness, run, settle
from tests.unit.session.operations.support import lose_history, lose_publication

PRESENCE = ChannelOptions(allow_subscribe_for_client=True, presence=True)
SHORT_INTERVALS: dict[str, Any] = {
    "ping_interval": Seconds(0),
    "presence_update_interval": Seconds(10),
    "channel_position_check_delay": Seconds(20),
}


def unsubscribed(client: HarnessClient) -> list[int]:
    """The codes of the unsubscribe pushes."""
    return [push["unsubscribe"]["code"] for push in client.receive_pushes() if "unsubscribe" in push]


def received(client: HarnessClient) -> list[object]:
    return [push["pub"]["data"] for push in client.receive_pushes()]


# --- presence


def test_presence_is_refreshed_while_the_channel_has_subscribers() -> None:
    """An entry lives for 2.2 intervals, so one refresh may fail. A lost entry is added again."""
    harness = NodeHarness(PRESENCE, **SHORT_INTERVALS)
    client = harness.connect("ann", "news")
    for _ in range(20):
        harness.advance_time(10)
        assert harness.present_clients("news") == {client.id}
    run(harness.memory.presence.remove("news", [client.id]))
    harness.advance_time(11)
    assert harness.present_clients("news") == {client.id}


def test_presence_expires_without_refresh() -> None:
    """An entry expires after 2.2 intervals, for example if its node has died."""
    harness = NodeHarness(PRESENCE, **SHORT_INTERVALS)
    client = harness.connect("ann", "news")
    harness.node.work.stop()
    harness.advance_time(21.5)
    assert harness.present_clients("news") == {client.id}
    harness.advance_time(0.5)
    assert harness.present_clients("news") == set()


def test_presence_of_a_channel_is_refreshed_in_a_few_calls() -> None:
    """A call has at most 250 clients. Subscriptions without presence are left out."""
    harness = NodeHarness(PRESENCE, {"open": OPEN}, **SHORT_INTERVALS)
    for _ in range(300):
        harness.connect("ann", "news", "open:a")
    before = len(harness.calls.completed)
    harness.advance_time(10.5)
    sizes = [len(call.split()) - 2 for call in harness.calls.completed[before:]]
    assert sizes == [250, 50]
    assert all(call.startswith("presence_refresh news ") for call in harness.calls.completed[before:])


def test_lost_entry_is_not_added_again_for_a_client_that_has_left() -> None:
    """The client may leave while its refresh is on its way."""

    async def scenario() -> None:
        harness = NodeHarness(PRESENCE, **SHORT_INTERVALS)
        leaving, staying = harness.connect("ann", "news"), harness.connect("bob", "news")
        run(harness.memory.presence.remove("news", [leaving.id, staying.id]))
        harness.calls.hold("presence_refresh")
        harness.advance_time(10.5)
        await settle()
        leaving.drop_connection()
        await settle()
        harness.calls.release("presence_refresh")
        await settle()
        assert harness.present_clients("news") == {staying.id}
        assert run(harness.memory.presence.members("news"))[staying.id] == ClientInfo("bob", staying.id)

    asyncio.run(scenario())


def test_hanging_engine_has_one_refresh() -> None:
    """Calls do not pile up, however long the engine hangs."""

    async def scenario() -> None:
        harness = NodeHarness(PRESENCE, **SHORT_INTERVALS)
        harness.connect("ann", "news")
        harness.calls.hold("presence_refresh")
        for _ in range(12):
            harness.advance_time(10)
            await settle()
        assert len(harness.node.background) == 1
        harness.calls.release("presence_refresh")
        await settle()
        assert len(harness.node.background) == 0

    asyncio.run(scenario())


def test_failing_engine_does_not_end_the_session() -> None:
    """The failure is reported, and the next refresh follows. A failing engine is no defect of the server."""
    harness = NodeHarness(PRESENCE, **SHORT_INTERVALS)
    client = harness.connect("ann", "news")
    harness.calls.fail_next("presence_refresh", EngineUnavailable("no link"))
    harness.advance_time(10)
    harness.recorder.expects_errors = True
    harness.calls.fail_next("presence_refresh", OSError("a defect"))
    harness.advance_time(11)
    assert client.disconnect_code == 0
    harness.advance_time(20)
    assert harness.present_clients("news") == {client.id}


def test_upkeep_ends_with_the_last_subscriber() -> None:
    """No presence entry stays, not even the one that is being refreshed."""

    async def scenario() -> None:
        harness = NodeHarness(PRESENCE, **SHORT_INTERVALS)
        client = harness.connect("ann", "a", "b")
        harness.calls.hold("presence_refresh")
        harness.advance_time(10.5)
        await settle()
        client.drop_connection()
        harness.calls.release("presence_refresh")
        await settle()
        assert harness.present_clients("a") | harness.present_clients("b") == set()
        harness.advance_time(30)
        assert len(harness.timers) == 0

    asyncio.run(scenario())


# --- positions


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.99])
def test_silent_loss_is_found_by_comparing_positions(chance: float) -> None:
    """The first comparison sees the new top, the second one sees that the channel has not reached it."""
    harness = NodeHarness(RECOVERABLE, **SHORT_INTERVALS)
    harness.random_value = chance
    client = harness.connect("ann", "news")
    lose_publication(harness, publish_next=False)
    harness.advance_time(22)
    assert received(client) == []
    harness.advance_time(22)
    assert received(client) == ["lost"]


@pytest.mark.parametrize("disabled", ["presence_update_interval", "channel_position_check_delay"])
def test_positions_are_compared_without_presence_updates(disabled: str) -> None:
    """The two intervals are independent. A delay of 0 switches the comparison off."""
    harness = NodeHarness(RECOVERABLE, **{**SHORT_INTERVALS, disabled: Seconds(0)})
    client = harness.connect("ann", "news")
    lose_publication(harness, publish_next=False)
    harness.advance_time(80)
    assert received(client) == (["lost"] if disabled == "presence_update_interval" else [])


def test_silent_loss_that_history_does_not_bridge_is_told() -> None:
    """Clients subscribe again, or connect again if the subscription is server-side."""
    harness = NodeHarness(RECOVERABLE, **SHORT_INTERVALS)
    client = harness.connect("ann", "news")
    served = harness.connect("bob", channels={"news": SubscriptionGrant()})
    lose_history(harness, publish_next=False)
    harness.advance_time(80)
    assert unsubscribed(client) == [2500]
    assert served.disconnect_code == 3010


def test_new_epoch_is_found_by_the_first_comparison() -> None:
    """The client then recovers."""
    harness = NodeHarness(RECOVERABLE, **SHORT_INTERVALS)
    client = harness.connect("ann", "news")
    local = harness.node.hub.find_channel("news")
    assert local is not None
    local.epoch = client.session.subscriptions["news"].epoch = "lost"
    harness.advance_time(22)
    assert unsubscribed(client) == [2500]


def test_busy_and_idle_channels_have_no_gap() -> None:
    """The number of comparisons does not matter."""
    harness = NodeHarness(RECOVERABLE, **SHORT_INTERVALS)
    client = harness.connect("ann", "news")
    for number in range(60):
        if number < 30:
            harness.publish("news", number)
        harness.advance_time(5)
    assert received(client) == list(range(30))


def test_position_of_a_channel_is_compared_once_for_all_subscribers() -> None:
    """Many channels share a call."""
    harness = NodeHarness(RECOVERABLE, **SHORT_INTERVALS)
    for _ in range(50):
        harness.connect("ann", "a", "b")
    before = len(harness.calls.completed)
    harness.advance_time(400)
    asked = harness.calls.completed[before:]
    assert set(asked) == {"positions a b"}
    assert 18 <= len(asked) <= 27


def test_comparison_ends_with_the_last_subscriber() -> None:
    """The result of a comparison on its way is ignored."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE, **SHORT_INTERVALS)
        client = harness.connect("ann", "news")
        lose_publication(harness, publish_next=False)
        harness.advance_time(22)
        harness.calls.hold("positions")
        harness.advance_time(22)
        await settle()
        client.request("unsubscribe", channel="news")
        harness.calls.release("positions")
        await settle()
        harness.advance_time(60)
        assert client.receive() == []
        assert len(harness.timers) == 0

    asyncio.run(scenario())


def test_failed_comparison_is_repeated_after_the_delay() -> None:
    """The loss is found later."""
    harness = NodeHarness(RECOVERABLE, **SHORT_INTERVALS)
    client = harness.connect("ann", "news")
    lose_publication(harness, publish_next=False)
    harness.calls.fail_next("positions", EngineUnavailable("no link"))
    harness.advance_time(66)
    assert received(client) == ["lost"]


def test_publications_on_their_way_are_no_loss() -> None:
    """The channel reaches the top of the first comparison before the second one."""
    harness = NodeHarness(RECOVERABLE, **SHORT_INTERVALS)
    client = harness.connect("ann", "news")
    held: list[Any] = []
    publish = harness.node.hub.publish
    harness.node.hub.publish = lambda *arguments: held.append(arguments)  # type: ignore[method-assign]
    harness.publish("news", 1)
    harness.advance_time(22)
    harness.node.hub.publish = publish  # type: ignore[method-assign]
    publish(*held[0])
    lose_publication(harness, publish_next=False)
    harness.advance_time(19)
    assert received(client) == [1]
    harness.advance_time(25)
    assert received(client) == ["lost"]
