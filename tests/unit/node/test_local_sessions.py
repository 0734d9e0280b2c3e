"""What the server API does to sessions: sections 14 and 20 of the protocol reference."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.grants import SubscriptionGrant, SubscriptionOverride
from beaconfire.model.identity import Identity
from beaconfire.model.position import StreamPosition
from beaconfire.node.cluster import (
    ConnectionsSurvey,
    DisconnectSessions,
    RefreshSessions,
    Selector,
    SubscribeSessions,
    UnsubscribeSessions,
)
from tests.unit.kit import OPEN, RECOVERABLE, VISIBLE, Client, World, run, settle

UNIX_S = 1_700_000_000
CLOSED = ChannelOptions()
SOCIAL = ChannelOptions(presence=True, join_leave=True, force_push_join_leave=True)


def people(world: World) -> tuple[Client, Client, Client, Client]:
    """Two of ann, one of bob, one of nobody."""
    return world.connect("ann"), world.connect("ann"), world.connect("bob"), world.connect()


@pytest.mark.parametrize(
    ("who", "hit"),
    [
        (Selector(user="ann"), {0, 1}),
        (Selector(user="ann", client="client2"), {1}),
        (Selector(client="client3"), {2}),
        (Selector(client="client4"), {3}),
        (Selector(user="bob", client="client1"), set()),
        (Selector(user="carol"), set()),
        (Selector(client="client9"), set()),
        (Selector(), set()),
        (Selector(session="client2"), {1}),
        (Selector(session="hush"), {2}),
        (Selector(client="client3", session="hush"), {2}),
        (Selector(client="client3", session="client3"), {2}),
        (Selector(user="bob", client="client3", session="hush"), {2}),
        (Selector(client="client1", session="hush"), set()),
        (Selector(client="client3", session="client1"), set()),
        (Selector(client="client9", session="hush"), set()),
        (Selector(client="client3", session="unknown"), set()),
        (Selector(user="ann", session="hush"), set()),
        (Selector(user="ann", session="unknown"), set()),
    ],
)
def test_whom_a_message_is_for(who: Selector, hit: set[int]) -> None:
    """All of a user, or the one that everything said is true of; nothing said is nobody, not everybody."""
    world = World()
    clients = people(world)
    bob = clients[2].session
    world.node.registry.remove(bob)
    clients[2].transport.secret = "hush"
    world.node.registry.add(bob)
    world.tell(DisconnectSessions(who, 4000, "enough"))
    assert {index for index, client in enumerate(clients) if client.ended} == hit


# --- disconnect


def test_disconnecting() -> None:
    """With the code and reason given; clients on the whitelist stay."""
    world = World()
    first, second, bob, _ = people(world)
    world.tell(DisconnectSessions(Selector(user="ann"), 4567, "enough", whitelist=(second.id,)))
    assert first.transport.closed == (4567, "enough")
    assert (second.ended, bob.ended) == (0, 0)


def test_disconnecting_somebody_who_is_just_connecting() -> None:
    """Works too: whoever is to go must not slip in."""

    async def scenario() -> None:
        world = World(RECOVERABLE)
        world.tokens.connections.known["t"] = Identity(user="ann", channels={"news": SubscriptionGrant()})
        client = world.open_session()
        world.stops.hold("history")
        client.send("connect", token="t")
        await settle()
        world.tell(DisconnectSessions(Selector(user="ann"), 3503, "force disconnect"))
        assert client.ended == 3503
        world.stops.release("history")
        await settle()
        assert client.take() == []
        assert world.node.hub.statistics().subscriptions == 0

    asyncio.run(scenario())


# --- subscribe


def test_subscribing_needs_no_permission() -> None:
    """The client is told, and from then on hears the channel."""
    world = World(CLOSED)
    client = world.connect("ann")
    world.tell(SubscribeSessions(Selector(user="ann"), "$news", data=b'{"a":1}'))
    world.publish("$news", "x")
    assert client.take_pushes() == [
        {"channel": "$news", "subscribe": {"data": {"a": 1}}},
        {"channel": "$news", "pub": {"data": "x"}},
    ]


def test_subscribing_tells_where_the_stream_stands() -> None:
    """With its position, so that the client can recover later."""
    world = World(RECOVERABLE)
    client = world.connect("ann")
    world.publish("news", 1, 2)
    world.tell(SubscribeSessions(Selector(user="ann"), "news"))
    assert client.take_pushes() == [
        {"channel": "news", "subscribe": {"recoverable": True, "positioned": True, "epoch": "epoch1", "offset": 2}}
    ]


def test_subscribing_may_recover() -> None:
    """From the position given: what was missed follows the push, in order."""
    world = World(RECOVERABLE)
    client = world.connect("ann")
    world.publish("news", 1, 2, 3)
    world.tell(SubscribeSessions(Selector(user="ann"), "news", since=StreamPosition(1, "epoch1")))
    world.publish("news", 4)
    subscribe, *publications = client.take_pushes()
    assert subscribe["subscribe"]["offset"] == 1
    assert [push["pub"]["data"] for push in publications] == [2, 3, 4]


def test_subscribing_announces_and_tracks() -> None:
    """With the info given, and what the override changes."""
    world = World(SOCIAL, {"quiet": CLOSED})
    client = world.connect("ann")
    world.tell(SubscribeSessions(Selector(user="ann"), "news", info=b'"chan"'))
    assert world.presence("news") == {client.id}
    subscribe, join = client.take_pushes()
    assert subscribe == {"channel": "news", "subscribe": {}}
    assert join["join"]["info"] == {"user": "ann", "client": client.id, "chan_info": "chan"}
    world.tell(SubscribeSessions(Selector(user="ann"), "quiet:x", override=SubscriptionOverride(presence=True)))
    assert world.presence("quiet:x") == {client.id}


@pytest.mark.parametrize("channel", ["news", "x" * 256, "nowhere:x", ""])
def test_what_cannot_be_subscribed_stays_as_it_is(channel: str) -> None:
    """In already, too long, unknown: nobody is told, nobody ends."""
    world = World()
    client = world.connect("ann", "news")
    world.tell(SubscribeSessions(Selector(user="ann"), channel))
    assert client.take() == []
    assert client.ended == 0
    assert set(client.session.subscriptions) == {"news"}


def test_one_more_channel_than_allowed_is_not_subscribed() -> None:
    """The limit of a connection is one for both sides."""
    world = World(channel_limit=1)
    client = world.connect("ann", "news")
    world.tell(SubscribeSessions(Selector(user="ann"), "other"))
    assert set(client.session.subscriptions) == {"news"}
    assert world.recorder.limits() == ["client.channel_limit"]


def test_the_client_may_leave_what_the_server_subscribed() -> None:
    """Unsubscribing always succeeds."""
    world = World()
    client = world.connect("ann")
    world.tell(SubscribeSessions(Selector(user="ann"), "news"))
    assert client.ask("unsubscribe", channel="news") == {}
    assert client.session.subscriptions == {}


def test_sessions_that_are_just_connecting_keep_their_channels() -> None:
    """Nothing reaches a client before its connect reply; it is as if the message had come a moment earlier."""

    async def scenario() -> None:
        world = World(RECOVERABLE)
        world.tokens.connections.known["t"] = Identity(user="ann", channels={"news": SubscriptionGrant()})
        client = world.open_session()
        world.stops.hold("history")
        client.send("connect", token="t")
        await settle()
        world.tell(SubscribeSessions(Selector(user="ann"), "other"))
        world.tell(UnsubscribeSessions(Selector(user="ann"), "news"))
        assert client.take() == []
        world.stops.release("history")
        await settle()
        [reply] = client.take()
        assert set(reply["connect"]["subs"]) == set(client.session.subscriptions) == {"news"}

    asyncio.run(scenario())


def test_subscribing_a_session_that_ends_meanwhile() -> None:
    """Leaves nothing behind."""

    async def scenario() -> None:
        world = World(SOCIAL)
        client = world.connect("ann")
        world.stops.hold("presence_add")
        world.tell(SubscribeSessions(Selector(user="ann"), "news"))
        await settle()
        client.cut()
        world.stops.release("presence_add")
        await settle()
        assert client.take() == []
        assert world.presence("news") == set()
        assert world.node.hub.statistics().subscriptions == 0

    asyncio.run(scenario())


def test_a_gap_while_subscribing_ends_the_session() -> None:
    """With 3010, as for every server-side subscription."""

    async def scenario() -> None:
        world = World(RECOVERABLE)
        client = world.connect("ann")
        world.stops.hold("history")
        world.tell(SubscribeSessions(Selector(user="ann"), "news"))
        await settle()
        world.node.listener.on_link_lost(None)
        world.stops.release("history")
        await settle()
        assert client.ended == 3010
        assert client.take() == []

    asyncio.run(scenario())


# --- unsubscribe


def test_unsubscribing() -> None:
    """From one channel or from all, client-side and server-side ones alike; the client is told with 2000."""
    world = World(SOCIAL, {"open": OPEN})
    client = world.connect("ann", "open:a", "open:b")
    world.tell(SubscribeSessions(Selector(user="ann"), "news"))
    client.take()
    world.tell(UnsubscribeSessions(Selector(user="ann"), "open:a"))
    pushed = {"code": 2000, "reason": "server unsubscribed"}
    assert client.take_pushes() == [{"channel": "open:a", "unsubscribe": pushed}]
    world.tell(UnsubscribeSessions(Selector(user="ann"), "open:a"))
    assert client.take() == []
    world.tell(UnsubscribeSessions(Selector(user="ann")))
    assert client.take_pushes() == [
        {"channel": "open:b", "unsubscribe": pushed},
        {"channel": "news", "unsubscribe": pushed},
    ]
    assert world.presence("news") == set()


# --- refresh


def test_a_new_end() -> None:
    """Earlier, later, or never."""
    world = World(ping_interval=Seconds(0))
    client = world.connect("ann", expire_at_unix_s=UNIX_S + 60.0, client_refresh=True)
    world.tell(RefreshSessions(Selector(user="ann"), expire_at_unix_s=UNIX_S + 100.0))
    world.pass_time(124.5, step_s=1)
    assert client.ended == 0
    world.tell(RefreshSessions(Selector(user="ann")))
    world.pass_time(1000, step_s=10)
    assert client.ended == 0
    world.tell(RefreshSessions(Selector(user="ann"), expire_at_unix_s=UNIX_S + 1.0))
    world.pass_time(1)
    assert client.ended == 3005


def test_the_end_now() -> None:
    """With 3005: the client may come back with a new token."""
    world = World()
    client = world.connect("ann")
    world.tell(RefreshSessions(Selector(user="ann"), expired=True))
    assert client.ended == 3005


def test_a_new_info() -> None:
    """Shown in what the client publishes from then on; without one, the old stays."""
    world = World()
    witness = world.connect("bob", "news")
    client = world.connect("ann", "news", info=Raw(b'"old"'))

    def shown() -> Any:
        client.ask("publish", channel="news", data=1)
        return witness.take_pushes()[-1]["pub"]["info"].get("conn_info")

    world.tell(RefreshSessions(Selector(user="ann")))
    assert shown() == "old"
    world.tell(RefreshSessions(Selector(user="ann"), info=b'"new"'))
    assert shown() == "new"
    world.tell(RefreshSessions(Selector(user="ann"), info=b""))
    assert shown() is None


def infos(world: World, channel: str = "news") -> dict[str, Any]:
    """What presence says of each user: the token's info."""
    members = run(world.memory.presence.members(channel))
    return {info.user: bytes(info.conn_info).decode() for info in members.values()}


def test_a_new_info_is_seen_wherever_the_client_is() -> None:
    """Presence has it at once, in every channel; nobody is told of it, but its leave has it."""
    world = World(VISIBLE, ping_interval=Seconds(0))
    witness = world.connect("bob", "news")
    client = world.connect("ann", "news", "sport", info=Raw(b'"old"'))
    witness.take()
    world.tell(RefreshSessions(Selector(user="ann"), info=b'"new"'))
    assert witness.take_pushes() == []
    assert infos(world) == {"ann": '"new"', "bob": ""}
    assert infos(world, "sport") == {"ann": '"new"'}
    world.pass_time(30)
    assert infos(world)["ann"] == '"new"', "nor does the next upkeep bring the old one back"
    client.cut()
    [push] = witness.take_pushes()
    assert push["leave"]["info"]["conn_info"] == "new"
    assert infos(world) == {"bob": ""}


def test_a_new_info_for_one_who_is_on_the_way() -> None:
    """In or out: who is subscribing comes with the new one, and who has left is not brought back by it."""

    async def scenario() -> None:
        world = World(VISIBLE)
        witness = world.connect("bob", "news")
        coming = world.connect("ann", info=Raw(b'"old"'))
        world.stops.hold("presence_add")
        coming.send("subscribe", channel="news")
        await settle()
        world.tell(RefreshSessions(Selector(user="ann"), info=b'"new"'))
        world.stops.release("presence_add")
        await settle()
        assert infos(world)["ann"] == '"new"'
        joins = [push["join"]["info"]["conn_info"] for push in witness.take_pushes() if "join" in push]
        assert joins == ["new"]
        world.stops.hold("presence_add")
        world.tell(RefreshSessions(Selector(user="ann"), info=b'"newer"'))
        coming.ask("unsubscribe", channel="news")
        world.stops.release("presence_add")
        await settle()
        assert "ann" not in infos(world)

    asyncio.run(scenario())


# --- answers


def test_channels_and_the_node_are_counted() -> None:
    """As they are now."""
    world = World()
    world.connect("ann", "a", "b")
    world.connect("bob", "b")
    world.connect()
    world.clock.advance(90.7)
    assert run(world.node.cluster.channels("")) == {"a": 1, "b": 2}
    [node] = run(world.node.cluster.nodes())
    assert (node.uid, node.name, node.version) == ("uid", "node", "1.2.3")
    assert (node.num_clients, node.num_users, node.num_channels, node.num_subs, node.uptime) == (3, 2, 2, 3, 90)


def test_connections_are_listed() -> None:
    """All, of one user, in one channel, and not more than asked for."""
    world = World()
    world.tokens.connections.known["t"] = Identity(user="ann")
    ann = world.open_session()
    ann.ask("connect", token="t", name="js", version="5")
    ann.ask("subscribe", channel="b")
    ann.ask("subscribe", channel="a")
    bob = world.connect("bob", "a")
    world.open_session()

    def listed(**survey: Any) -> list[str]:
        return [found.client for found in run(world.node.cluster.connections(ConnectionsSurvey(**survey)))]

    assert listed() == [ann.id, bob.id]
    assert listed(user="ann") == [ann.id]
    assert listed(channel="a") == [ann.id, bob.id]
    assert listed(channel="b", user="bob") == []
    assert listed(limit=1) == [ann.id]
    [found] = run(world.node.cluster.connections(ConnectionsSurvey(user="ann")))
    assert (found.user, found.transport, found.protocol) == ("ann", "test", "centrifuge-json")
    assert (found.channels, found.connected_at_ms) == (["a", "b"], UNIX_S * 1000)
    assert (found.app_name, found.app_version) == ("js", "5")
