"""What a session needs now and then without being asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.grants import SubscriptionGrant
from tests.unit.kit import RECOVERABLE, Client, World, run, settle

PRESENT = ChannelOptions(allow_subscribe_for_client=True, presence=True)
QUICK: dict[str, Any] = {
    "ping_interval": Seconds(0),
    "presence_update_interval": Seconds(10),
    "channel_position_check_delay": Seconds(20),
}


def miss_one(world: World) -> None:
    """A publication that is stored but never announced here, and nothing after it."""
    run(world.memory.broker.detach("news"))
    world.publish("news", "lost")
    run(world.memory.broker.attach("news"))


def unsubscribed(client: Client) -> list[int]:
    return [push["unsubscribe"]["code"] for push in client.take_pushes()]


def test_presence_is_refreshed_for_as_long_as_the_session_lives() -> None:
    """An entry lives for 2.2 intervals, so one refresh may be lost."""
    world = World(PRESENT, **QUICK)
    client = world.connect("ann", "news")
    for _ in range(20):
        world.pass_time(10)
        assert world.presence("news") == {client.id}
    run(world.memory.presence.remove("news", client.id))
    world.pass_time(10)
    assert world.presence("news") == {client.id}


def test_a_dead_nodes_presence_vanishes() -> None:
    """Nobody refreshes it: after 2.2 intervals it is gone."""
    world = World(PRESENT, **QUICK)
    client = world.connect("ann", "news")
    client.session.keepalive.cancel()
    world.pass_time(21.5)
    assert world.presence("news") == {client.id}
    world.pass_time(0.5)
    assert world.presence("news") == set()


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.99])
def test_a_silent_loss_is_found(chance: float) -> None:
    """By comparing positions: once to see that something is there, once to see that it never came."""
    world = World(RECOVERABLE, **QUICK)
    world.chance = chance
    client = world.connect("ann", "news")
    miss_one(world)
    world.pass_time(20)
    assert unsubscribed(client) == []
    world.pass_time(60)
    assert unsubscribed(client) == [2500]
    result = client.ask("subscribe", channel="news", recover=True, epoch="epoch1")
    assert [publication["data"] for publication in result["publications"]] == ["lost"]


def test_a_silent_loss_ends_server_side_subscribers() -> None:
    """With 3010."""
    world = World(RECOVERABLE, **QUICK)
    client = world.connect("ann", channels={"news": SubscriptionGrant()})
    miss_one(world)
    world.pass_time(80)
    assert client.ended == 3010


def test_a_stream_that_began_anew_is_found_at_once() -> None:
    """Its epoch tells, at the first comparison."""
    world = World(RECOVERABLE, **QUICK)
    client = world.connect("ann", "news")
    subscription = client.session.subscriptions["news"]
    subscription.epoch = "lost"
    world.pass_time(30)
    assert unsubscribed(client) == [2500]


def test_a_busy_or_idle_channel_is_left_alone() -> None:
    """However long, nothing is taken for a loss."""
    world = World(RECOVERABLE, **QUICK)
    client = world.connect("ann", "news")
    for number in range(60):
        if number < 30:
            world.publish("news", number)
        world.pass_time(5)
    assert [push["pub"]["data"] for push in client.take_pushes()] == list(range(30))


def test_positions_are_compared_no_more_often_than_configured() -> None:
    """And never if that is switched off."""
    for delay, expected in ((20, range(18, 27)), (0, range(1))):
        world = World(RECOVERABLE, **{**QUICK, "channel_position_check_delay": Seconds(delay)})
        world.connect("ann", "news")
        before = len(world.stops.passed)
        world.pass_time(400)
        asked = [call for call in world.stops.passed[before:] if call == "history news"]
        assert len(asked) in expected, len(asked)


def test_positions_are_compared_without_presence_updates_too() -> None:
    """The two have nothing to do with each other."""
    world = World(RECOVERABLE, **{**QUICK, "presence_update_interval": Seconds(0)})
    client = world.connect("ann", "news")
    miss_one(world)
    world.pass_time(80)
    assert unsubscribed(client) == [2500]


def test_upkeep_of_a_session_that_ends_meanwhile_stops() -> None:
    """It leaves no presence behind, not even of what it was just refreshing."""

    async def scenario() -> None:
        world = World(PRESENT, **QUICK)
        client = world.connect("ann", "a", "b")
        world.stops.hold("presence_add")
        world.pass_time(10)
        await settle()
        client.cut()
        world.stops.release("presence_add")
        await settle()
        assert world.presence("a") | world.presence("b") == set()
        world.pass_time(30)
        assert len(world.timers) == 0

    asyncio.run(scenario())


def test_a_subscription_that_goes_while_its_position_is_asked_is_left_alone() -> None:
    """The answer is about something that is over."""

    async def scenario() -> None:
        world = World(RECOVERABLE, **QUICK)
        client = world.connect("ann", "news")
        client.session.subscriptions["news"].epoch = "lost"
        world.stops.hold("history")
        world.pass_time(30)
        await settle()
        client.ask("unsubscribe", channel="news")
        world.stops.release("history")
        await settle()
        assert client.take() == []

    asyncio.run(scenario())


def test_a_failing_engine_does_not_end_sessions() -> None:
    """It is reported, and upkeep tries again at its time."""
    world = World(PRESENT, **QUICK)
    world.recorder.expects_errors = True
    client = world.connect("ann", "news")
    world.stops.fail_next("presence_add", OSError("no link"))
    world.pass_time(10)
    assert client.ended == 0
    world.pass_time(20)
    assert world.presence("news") == {client.id}
