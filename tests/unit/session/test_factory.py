"""A new connection becomes a session; the lobby takes it in at once."""

from __future__ import annotations

import asyncio

from beaconfire.base.errors import PERMISSION_DENIED, CommandError
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.events import ConnectionOpened
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.node.cluster import Selector, UnsubscribeSessions
from beaconfire.transports.traits import SessionTraits
from tests.unit.kit import OPEN, World, settle

SOCIAL = ChannelOptions(
    allow_subscribe_for_client=True,
    allow_subscribe_for_anonymous=True,
    presence=True,
    join_leave=True,
    force_push_join_leave=True,
)


def test_every_session_has_an_id_of_its_own() -> None:
    """And is counted from its first moment on."""
    world = World()
    first, second = world.open_session(), world.plain()
    assert first.id != second.id
    assert world.recorder.of(ConnectionOpened) == [
        ConnectionOpened("test", "centrifuge-json", first.id),
        ConnectionOpened("test", "plain", second.id),
    ]
    statistics = world.node.statistics()
    assert (statistics.connections, statistics.sessions) == (2, 0)


def test_manners_may_be_those_of_one_connection() -> None:
    """Else the endpoint's count."""
    world = World()
    own = SessionTraits(app_pings=False)
    assert world.open_session(own).session.traits is own
    assert world.open_session().session.traits == SessionTraits()


def test_everyone_is_in_the_lobby_from_the_start() -> None:
    """With no permission, no position, no presence, and nobody hears of it."""
    world = World(SOCIAL)
    witness = world.connect("ann", "lobby")
    client = world.plain("lobby")
    assert witness.take() == []
    assert world.presence("lobby") == {witness.id}
    world.publish("lobby", 1)
    assert [message["data"] for message in client.take()] == [1]
    client.cut()
    assert [push["pub"]["data"] for push in witness.take_pushes()] == [1]
    closed = World(ChannelOptions()).plain("lobby")
    closed.world.publish("lobby", 1)
    assert len(closed.take()) == 1


def test_without_a_lobby_nobody_is_anywhere() -> None:
    """And a frame that is no message is an error."""
    world = World()
    client = world.plain()
    assert client.session.subscriptions == {}
    client.send_text("hello")
    assert [message["code"] for message in client.take()] == [107]
    assert client.ended == 0


def test_the_lobby_can_be_left_and_joined_by_its_name() -> None:
    """Joining twice is error 105; who left hears nothing and is still heard."""
    world = World(SOCIAL)
    client, other = world.plain("lobby"), world.plain("lobby")
    assert client.say(type="join", room="lobby")[0]["code"] == 105
    assert client.say(type="leave", room="lobby")[0]["type"] == "left"
    other.send_text("[1]")
    assert client.take() == []
    client.send_text("[2]")
    assert client.take() == []
    other.take()
    assert other.transport.writes == [b"[1]\n", b"[2]\n"]
    assert [message["type"] for message in client.say(type="join", room="lobby")] == ["joined", "join"]
    other.send_text("[3]")
    client.world.turn()
    assert client.transport.writes[-1] == b"[3]\n"


def test_who_came_back_by_name_came_like_anybody() -> None:
    """The lobby's own door needs no permission, the room's does."""
    world = World(ChannelOptions())
    client = world.plain("lobby")
    client.say(type="leave", room="lobby")
    assert client.say(type="join", room="lobby")[0]["code"] == PERMISSION_DENIED.code


def test_the_lobby_survives_a_failed_handshake_and_the_server_api() -> None:
    """It belongs to the connection, not to the user."""
    world = World(OPEN, allow_anonymous=False)
    world.recorder.expects_errors = True
    client = world.plain("lobby")
    world.stops.fail_next("verify", CommandError(PERMISSION_DENIED))
    assert client.say(type="handshake", token="x")[0]["code"] == 103
    assert set(client.session.subscriptions) == {"lobby"}
    world.stops.fail_next("verify", RuntimeError("broken"))
    assert client.say(type="handshake", token="x")[0]["code"] == 100
    assert set(client.session.subscriptions) == {"lobby"}
    world.tokens.connections.known["ann"] = Identity(user="ann", channels={"news": SubscriptionGrant()})
    world.stops.fail_next("attach", OSError("no link"))
    assert client.say(type="handshake", token="ann")[0]["code"] == 100
    assert set(client.session.subscriptions) == {"lobby"}
    assert client.session.user == "", "who failed to come in is nobody again"
    world.tell(UnsubscribeSessions(Selector(client=client.id)))
    assert set(client.session.subscriptions) == {"lobby"}


def test_the_server_api_does_not_take_named_clients_out_of_the_lobby() -> None:
    """Not even by asking for every channel."""
    world = World(SOCIAL)
    client = world.plain("lobby")
    assert client.say(type="handshake", user="ann")[0]["type"] == "welcome"
    client.say(type="join", room="news")
    world.tell(UnsubscribeSessions(Selector(client=client.id)))
    assert set(client.session.subscriptions) == {"lobby"}


def test_the_lobby_is_not_among_the_rooms_of_the_welcome() -> None:
    """Nobody was put there by who they are."""
    client = World().plain("lobby")
    [welcome] = client.say(type="handshake", id=1)
    assert "rooms" not in welcome


def test_a_token_may_name_the_lobby() -> None:
    """One is in it already, and stays as one is."""
    world = World()
    client = world.plain("lobby")
    world.tokens.connections.known["t"] = Identity(user="ann", channels={"lobby": SubscriptionGrant()})
    assert client.say(type="handshake", token="t")[0]["type"] == "welcome"
    assert world.node.hub.count("lobby") == 1
    world.publish("lobby", 1)
    assert len(client.take()) == 1


def test_the_lobby_counts_as_a_channel() -> None:
    """One connection may have so many, and this is one."""
    client = World(SOCIAL, channel_limit=2).plain("lobby")
    assert client.say(type="join", room="a")[0]["type"] == "joined"
    assert client.say(type="join", room="b")[0]["code"] == 106


def test_a_lobby_that_cannot_be_attached_is_reported() -> None:
    """The connection lives, and the next one tries again."""
    world = World()
    world.recorder.expects_errors = True
    world.stops.fail_next("attach", OSError("no link"))
    client = world.plain("lobby")
    assert client.ended == 0
    assert len(world.recorder.events) == 2
    world.plain("lobby")
    world.publish("lobby", 1)
    assert len(client.take()) == 1


def test_a_connection_that_goes_at_once_leaves_the_lobby() -> None:
    """Even while the lobby is still being attached."""

    async def scenario() -> None:
        world = World()
        world.stops.hold("attach")
        client = world.plain("lobby")
        client.cut()
        world.pass_time(5)
        world.stops.release("attach")
        await settle()
        assert world.attached() == 0
        assert world.node.hub.statistics().subscriptions == 0

    asyncio.run(scenario())
