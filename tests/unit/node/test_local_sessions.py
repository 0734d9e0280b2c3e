"""Control messages and surveys, applied to the sessions of a node: sections 14 and 20 of the protocol reference."""

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
from tests.unit.kit import OPEN, RECOVERABLE, WITH_PRESENCE, HarnessClient, NodeHarness, run, settle

UNIX_S = 1_700_000_000
CLOSED = ChannelOptions()
WITH_JOIN_LEAVE = ChannelOptions(presence=True, join_leave=True, force_push_join_leave=True)


def connect_clients(harness: NodeHarness) -> tuple[HarnessClient, HarnessClient, HarnessClient, HarnessClient]:
    """Two clients of ann, one of bob, and an anonymous one."""
    return harness.connect("ann"), harness.connect("ann"), harness.connect("bob"), harness.connect()


@pytest.mark.parametrize(
    ("selector", "matches"),
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
        (Selector(session="secret"), {2}),
        (Selector(client="client3", session="secret"), {2}),
        (Selector(client="client3", session="client3"), {2}),
        (Selector(user="bob", client="client3", session="secret"), {2}),
        (Selector(client="client1", session="secret"), set()),
        (Selector(client="client3", session="client1"), set()),
        (Selector(client="client9", session="secret"), set()),
        (Selector(client="client3", session="unknown"), set()),
        (Selector(user="ann", session="secret"), set()),
        (Selector(user="ann", session="unknown"), set()),
    ],
)
def test_selector_matches_sessions(selector: Selector, matches: set[int]) -> None:
    """All sessions of a user, or the one session that every given field matches. An empty selector matches none."""
    harness = NodeHarness()
    clients = connect_clients(harness)
    bob = clients[2].session
    harness.node.registry.remove(bob)
    clients[2].transport.secret = "secret"
    harness.node.registry.add(bob)
    harness.send_control(DisconnectSessions(selector, 4000, "enough"))
    assert {index for index, client in enumerate(clients) if client.disconnect_code} == matches


# --- disconnect


def test_disconnect_message_ends_sessions() -> None:
    """The client gets its code and reason. Clients on the whitelist stay."""
    harness = NodeHarness()
    first, second, bob, _ = connect_clients(harness)
    harness.send_control(DisconnectSessions(Selector(user="ann"), 4567, "enough", whitelist=(second.id,)))
    assert first.transport.closed == (4567, "enough")
    assert (second.disconnect_code, bob.disconnect_code) == (0, 0)


def test_disconnect_message_ends_sessions_that_are_connecting() -> None:
    """They must not stay connected."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        harness.tokens.connections.known["t"] = Identity(user="ann", channels={"news": SubscriptionGrant()})
        client = harness.open_session()
        harness.calls.hold("history")
        client.send("connect", token="t")
        await settle()
        harness.send_control(DisconnectSessions(Selector(user="ann"), 3503, "force disconnect"))
        assert client.disconnect_code == 3503
        harness.calls.release("history")
        await settle()
        assert client.receive() == []
        assert harness.node.hub.statistics().subscriptions == 0

    asyncio.run(scenario())


# --- subscribe


def test_subscribe_message_needs_no_permission() -> None:
    """The client gets a subscribe push, and then publications."""
    harness = NodeHarness(CLOSED)
    client = harness.connect("ann")
    harness.send_control(SubscribeSessions(Selector(user="ann"), "$news", data=b'{"a":1}'))
    harness.publish("$news", "x")
    assert client.receive_pushes() == [
        {"channel": "$news", "subscribe": {"data": {"a": 1}}},
        {"channel": "$news", "pub": {"data": "x"}},
    ]


def test_subscribe_push_has_the_position() -> None:
    """The client can recover later."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann")
    harness.publish("news", 1, 2)
    harness.send_control(SubscribeSessions(Selector(user="ann"), "news"))
    assert client.receive_pushes() == [
        {"channel": "news", "subscribe": {"recoverable": True, "positioned": True, "epoch": "epoch1", "offset": 2}}
    ]


def test_subscribe_message_may_recover() -> None:
    """The missed publications follow the push in order."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann")
    harness.publish("news", 1, 2, 3)
    harness.send_control(SubscribeSessions(Selector(user="ann"), "news", since=StreamPosition(1, "epoch1")))
    harness.publish("news", 4)
    subscribe, *publications = client.receive_pushes()
    assert subscribe["subscribe"]["offset"] == 1
    assert [push["pub"]["data"] for push in publications] == [2, 3, 4]


def test_subscribe_message_adds_presence_and_announces_the_join() -> None:
    """They have the info of the message, and the override of the message applies."""
    harness = NodeHarness(WITH_JOIN_LEAVE, {"quiet": CLOSED})
    client = harness.connect("ann")
    harness.send_control(SubscribeSessions(Selector(user="ann"), "news", info=b'"chan"'))
    assert harness.present_clients("news") == {client.id}
    subscribe, join = client.receive_pushes()
    assert subscribe == {"channel": "news", "subscribe": {}}
    assert join["join"]["info"] == {"user": "ann", "client": client.id, "chan_info": "chan"}
    harness.send_control(
        SubscribeSessions(Selector(user="ann"), "quiet:x", override=SubscriptionOverride(presence=True))
    )
    assert harness.present_clients("quiet:x") == {client.id}


@pytest.mark.parametrize("channel", ["news", "x" * 256, "nowhere:x", ""])
def test_subscribe_message_for_an_impossible_channel_changes_nothing(channel: str) -> None:
    """The channel is subscribed already, too long, or unknown. No push is sent, and the session stays open."""
    harness = NodeHarness()
    client = harness.connect("ann", "news")
    harness.send_control(SubscribeSessions(Selector(user="ann"), channel))
    assert client.receive() == []
    assert client.disconnect_code == 0
    assert set(client.session.subscriptions) == {"news"}


def test_subscribe_message_over_the_channel_limit_is_ignored() -> None:
    """The limit counts client-side and server-side subscriptions."""
    harness = NodeHarness(channel_limit=1)
    client = harness.connect("ann", "news")
    harness.send_control(SubscribeSessions(Selector(user="ann"), "other"))
    assert set(client.session.subscriptions) == {"news"}
    assert harness.recorder.limits() == ["client.channel_limit"]


def test_client_may_unsubscribe_from_a_server_side_subscription() -> None:
    """Unsubscribe always succeeds."""
    harness = NodeHarness()
    client = harness.connect("ann")
    harness.send_control(SubscribeSessions(Selector(user="ann"), "news"))
    assert client.request("unsubscribe", channel="news") == {}
    assert client.session.subscriptions == {}


def test_messages_do_not_change_subscriptions_of_connecting_sessions() -> None:
    """Nothing reaches a client before its connect reply.

    The effect is as if the message had come before the session.
    """

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        harness.tokens.connections.known["t"] = Identity(user="ann", channels={"news": SubscriptionGrant()})
        client = harness.open_session()
        harness.calls.hold("history")
        client.send("connect", token="t")
        await settle()
        harness.send_control(SubscribeSessions(Selector(user="ann"), "other"))
        harness.send_control(UnsubscribeSessions(Selector(user="ann"), "news"))
        assert client.receive() == []
        harness.calls.release("history")
        await settle()
        [reply] = client.receive()
        assert set(reply["connect"]["subs"]) == set(client.session.subscriptions) == {"news"}

    asyncio.run(scenario())


def test_session_that_ends_during_a_subscribe_message_leaves_nothing_behind() -> None:
    """No presence entry and no subscription stay."""

    async def scenario() -> None:
        harness = NodeHarness(WITH_JOIN_LEAVE)
        client = harness.connect("ann")
        harness.calls.hold("presence_add")
        harness.send_control(SubscribeSessions(Selector(user="ann"), "news"))
        await settle()
        client.drop_connection()
        harness.calls.release("presence_add")
        await settle()
        assert client.receive() == []
        assert harness.present_clients("news") == set()
        assert harness.node.hub.statistics().subscriptions == 0

    asyncio.run(scenario())


def test_gap_during_a_subscribe_message_ends_the_session_with_3010() -> None:
    """The rule is the same for every server-side subscription."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        client = harness.connect("ann")
        harness.calls.hold("history")
        harness.send_control(SubscribeSessions(Selector(user="ann"), "news"))
        await settle()
        harness.node.hub.mark_gap("news", "publications were lost")
        harness.run_scheduled()
        harness.calls.release("history")
        await settle()
        assert client.disconnect_code == 3010
        assert client.receive() == []

    asyncio.run(scenario())


# --- unsubscribe


def test_unsubscribe_message_ends_subscriptions_with_2000() -> None:
    """The message is for one channel or for all. Client-side and server-side subscriptions end."""
    harness = NodeHarness(WITH_JOIN_LEAVE, {"open": OPEN})
    client = harness.connect("ann", "open:a", "open:b")
    harness.send_control(SubscribeSessions(Selector(user="ann"), "news"))
    client.receive()
    harness.send_control(UnsubscribeSessions(Selector(user="ann"), "open:a"))
    pushed = {"code": 2000, "reason": "server unsubscribed"}
    assert client.receive_pushes() == [{"channel": "open:a", "unsubscribe": pushed}]
    harness.send_control(UnsubscribeSessions(Selector(user="ann"), "open:a"))
    assert client.receive() == []
    harness.send_control(UnsubscribeSessions(Selector(user="ann")))
    assert client.receive_pushes() == [
        {"channel": "open:b", "unsubscribe": pushed},
        {"channel": "news", "unsubscribe": pushed},
    ]
    assert harness.present_clients("news") == set()


# --- refresh


def test_refresh_message_moves_the_expiry() -> None:
    """The new expiry may be earlier, later, or never."""
    harness = NodeHarness(ping_interval=Seconds(0))
    client = harness.connect("ann", expire_at_unix_s=UNIX_S + 60.0, client_refresh=True)
    harness.send_control(RefreshSessions(Selector(user="ann"), expire_at_unix_s=UNIX_S + 100.0))
    harness.advance_time(124.5, step_s=1)
    assert client.disconnect_code == 0
    harness.send_control(RefreshSessions(Selector(user="ann")))
    harness.advance_time(1000, step_s=10)
    assert client.disconnect_code == 0
    harness.send_control(RefreshSessions(Selector(user="ann"), expire_at_unix_s=UNIX_S + 1.0))
    harness.advance_time(1)
    assert client.disconnect_code == 3005


def test_refresh_message_may_expire_the_connection_at_once() -> None:
    """The code is 3005, so the client may connect again with a new token."""
    harness = NodeHarness()
    client = harness.connect("ann")
    harness.send_control(RefreshSessions(Selector(user="ann"), expired=True))
    assert client.disconnect_code == 3005


def test_refresh_message_changes_the_info_of_publications() -> None:
    """A message without info does not change it."""
    harness = NodeHarness()
    subscriber = harness.connect("bob", "news")
    client = harness.connect("ann", "news", info=Raw(b'"old"'))

    def shown() -> Any:
        client.request("publish", channel="news", data=1)
        return subscriber.receive_pushes()[-1]["pub"]["info"].get("conn_info")

    harness.send_control(RefreshSessions(Selector(user="ann")))
    assert shown() == "old"
    harness.send_control(RefreshSessions(Selector(user="ann"), info=b'"new"'))
    assert shown() == "new"
    harness.send_control(RefreshSessions(Selector(user="ann"), info=b""))
    assert shown() is None


def infos(harness: NodeHarness, channel: str = "news") -> dict[str, Any]:
    """The connection info of each user in presence."""
    members = run(harness.memory.presence.members(channel))
    return {info.user: bytes(info.conn_info).decode() for info in members.values()}


def test_refresh_message_changes_the_info_in_every_channel() -> None:
    """Presence has the new info at once, and the leave has it. No message announces the change."""
    harness = NodeHarness(WITH_PRESENCE, ping_interval=Seconds(0))
    subscriber = harness.connect("bob", "news")
    client = harness.connect("ann", "news", "sport", info=Raw(b'"old"'))
    subscriber.receive()
    harness.send_control(RefreshSessions(Selector(user="ann"), info=b'"new"'))
    assert subscriber.receive_pushes() == []
    assert infos(harness) == {"ann": '"new"', "bob": ""}
    assert infos(harness, "sport") == {"ann": '"new"'}
    harness.advance_time(30)
    assert infos(harness)["ann"] == '"new"', "the next upkeep does not bring the old info back"
    client.drop_connection()
    [push] = subscriber.receive_pushes()
    assert push["leave"]["info"]["conn_info"] == "new"
    assert infos(harness) == {"bob": ""}


def test_refresh_message_during_subscribe_and_unsubscribe() -> None:
    """A subscription that is being made gets the new info. An ended one does not come back to presence."""

    async def scenario() -> None:
        harness = NodeHarness(WITH_PRESENCE)
        subscriber = harness.connect("bob", "news")
        client = harness.connect("ann", info=Raw(b'"old"'))
        harness.calls.hold("presence_add")
        client.send("subscribe", channel="news")
        await settle()
        harness.send_control(RefreshSessions(Selector(user="ann"), info=b'"new"'))
        harness.calls.release("presence_add")
        await settle()
        assert infos(harness)["ann"] == '"new"'
        joins = [push["join"]["info"]["conn_info"] for push in subscriber.receive_pushes() if "join" in push]
        assert joins == ["new"]
        harness.calls.hold("presence_add")
        harness.send_control(RefreshSessions(Selector(user="ann"), info=b'"newer"'))
        client.request("unsubscribe", channel="news")
        harness.calls.release("presence_add")
        await settle()
        assert "ann" not in infos(harness)

    asyncio.run(scenario())


# --- surveys


def test_surveys_count_channels_users_and_subscriptions() -> None:
    """The counts are those at the time of the survey."""
    harness = NodeHarness()
    harness.connect("ann", "a", "b")
    harness.connect("bob", "b")
    harness.connect()
    harness.clock.advance(90.7)
    assert run(harness.node.cluster.channels("")) == {"a": 1, "b": 2}
    [node] = run(harness.node.cluster.nodes())
    assert (node.uid, node.name, node.version) == ("uid", "node", "1.2.3")
    assert (node.num_clients, node.num_users, node.num_channels, node.num_subs, node.uptime) == (3, 2, 2, 3, 90)


def test_survey_lists_connections() -> None:
    """A survey may ask for one user and one channel, and has a limit."""
    harness = NodeHarness()
    harness.tokens.connections.known["t"] = Identity(user="ann")
    ann = harness.open_session()
    ann.request("connect", token="t", name="js", version="5")
    ann.request("subscribe", channel="b")
    ann.request("subscribe", channel="a")
    bob = harness.connect("bob", "a")
    harness.open_session()

    def listed(**survey: Any) -> list[str]:
        return [found.client for found in run(harness.node.cluster.connections(ConnectionsSurvey(**survey)))]

    assert listed() == [ann.id, bob.id]
    assert listed(user="ann") == [ann.id]
    assert listed(channel="a") == [ann.id, bob.id]
    assert listed(channel="b", user="bob") == []
    assert listed(limit=1) == [ann.id]
    [found] = run(harness.node.cluster.connections(ConnectionsSurvey(user="ann")))
    assert (found.user, found.transport, found.protocol) == ("ann", "test", "centrifuge-json")
    assert (found.channels, found.connected_at_ms) == (["a", "b"], UNIX_S * 1000)
    assert (found.app_name, found.app_version) == ("js", "5")
