"""Presence, joins and leaves of subscriptions: section 14 of the protocol reference."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Raw

from beaconfire.channels.options import ChannelOptions
from beaconfire.model.events import Subscribed, Unsubscribed
from beaconfire.model.grants import SubscriptionOverride
from beaconfire.node.cluster import RefreshSessions, Selector, SubscribeSessions, UnsubscribeSessions
from tests.unit.kit import OPEN, HarnessClient, NodeHarness, settle
from tests.unit.session.operations.support import ALL_STEPS, WITH_JOIN_LEAVE


def test_presence_follows_the_namespace_and_the_token() -> None:
    """An entry is added with the subscription and removed with it."""
    harness = NodeHarness(WITH_JOIN_LEAVE, {"plain": OPEN})
    client = harness.connect("ann", "news", "plain:x")
    assert harness.present_clients("news") == {client.id}
    assert harness.present_clients("plain:x") == set()
    harness.tokens.add_subscription("t", "ann", "plain:y", override=SubscriptionOverride(presence=True))
    client.request("subscribe", channel="plain:y", token="t")
    assert harness.present_clients("plain:y") == {client.id}
    client.request("unsubscribe", channel="plain:y")
    assert harness.present_clients("plain:y") == set()
    client.drop_connection()
    assert harness.present_clients("news") == set()


def announcements(client: HarnessClient) -> list[str]:
    """The joins and leaves that the client received, as `join client1`."""
    found = []
    for push in client.receive_pushes():
        [kind] = push.keys() - {"channel"}
        found.append(f"{kind} {push[kind]['info']['client']}")
    return found


def test_own_join_is_sent_after_the_subscribe_reply() -> None:
    """The subscriber receives its own join, never before the reply."""
    harness = NodeHarness(WITH_JOIN_LEAVE)
    client = harness.connect("ann")
    number = client.send("subscribe", channel="news")
    reply, push = client.receive()
    assert reply == {"id": number, "subscribe": {}}
    assert push == {"push": {"channel": "news", "join": {"info": {"user": "ann", "client": client.id}}}}


def test_subscribers_receive_joins_and_leaves_of_others() -> None:
    """Once each, if a client unsubscribes, if its connection is lost, and if the server disconnects it."""
    harness = NodeHarness(WITH_JOIN_LEAVE)
    subscriber = harness.connect("bob", "news")
    endings: list[Callable[[HarnessClient], object]] = [
        lambda client: client.request("unsubscribe", channel="news"),
        lambda client: client.drop_connection(),
        lambda client: client.send_text("garbage"),
    ]
    for end in endings:
        client = harness.connect("ann", "news")
        assert announcements(subscriber) == [f"join {client.id}"]
        end(client)
        assert announcements(subscriber) == [f"leave {client.id}"]


def test_unsubscribed_client_does_not_receive_its_own_leave() -> None:
    """Nothing of the channel is sent after the unsubscribe reply."""
    harness = NodeHarness(WITH_JOIN_LEAVE)
    client = harness.connect("ann", "news")
    number = client.send("unsubscribe", channel="news")
    assert client.receive() == [{"id": number, "unsubscribe": {}}]


def test_failed_subscription_has_no_leave() -> None:
    """Its join was not announced."""
    harness = NodeHarness(WITH_JOIN_LEAVE)
    harness.recorder.expects_errors = True
    subscriber = harness.connect("bob", "news")
    client = harness.connect("ann")
    harness.calls.fail_next("presence_add", OSError("no link"))
    assert client.request_code("subscribe", channel="news") == 100
    assert announcements(subscriber) == []
    assert harness.present_clients("news") == {subscriber.id}
    assert client.request_code("subscribe", channel="news") == 0


def test_joins_and_presence_show_connection_and_channel_info() -> None:
    """Both come from the tokens."""
    harness = NodeHarness(WITH_JOIN_LEAVE)
    subscriber = harness.connect("bob", "news")
    client = harness.connect("ann", info=Raw(b'"conn"'))
    harness.tokens.add_subscription("t", "ann", "news", info=Raw(b'"chan"'))
    client.request("subscribe", channel="news", token="t")
    expected = {"user": "ann", "client": client.id, "conn_info": "conn", "chan_info": "chan"}
    assert [push["join"]["info"] for push in subscriber.receive_pushes()] == [expected]
    assert subscriber.request("presence", channel="news")["presence"][client.id] == expected


def test_subscriptions_and_their_ends_are_reported() -> None:
    """The event has the unsubscribe code. A failed subscription is not reported."""
    harness = NodeHarness()
    harness.recorder.expects_errors = True
    harness.calls.fail_next("attach", OSError("no link"))
    assert harness.connect("bob").request_code("subscribe", channel="d") == 100
    client = harness.connect("ann", "a", "b", "c")
    client.request("unsubscribe", channel="a")
    harness.send_control(UnsubscribeSessions(Selector(user="ann"), "b"))
    client.drop_connection()
    assert [event.channel for event in harness.recorder.of(Subscribed)] == ["a", "b", "c"]
    assert [(event.channel, event.code) for event in harness.recorder.of(Unsubscribed)] == [
        ("a", 0),
        ("b", 2000),
        ("c", 0),
    ]


def test_presence_added_after_its_removal_is_removed() -> None:
    """A slow store may add an entry late. The entry of a newer subscription of the client stays."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        let_the_first_add = harness.calls.hold("presence_add")
        client.send("subscribe", channel="news")
        await settle()
        harness.send_control(UnsubscribeSessions(Selector(user="ann"), "news"))
        let_the_second_add = harness.calls.hold("presence_add")
        harness.send_control(SubscribeSessions(Selector(user="ann"), "news"))
        let_the_second_add()
        await settle()
        let_the_first_add()
        await settle()
        assert client.session.subscriptions["news"].options.server_side
        assert harness.present_clients("news") == {client.id}
        client.drop_connection()
        assert harness.present_clients("news") == set()

    asyncio.run(scenario())


def test_removal_is_idempotent() -> None:
    """Repeated removals make one presence removal and one leave."""
    harness = NodeHarness(ChannelOptions(allow_subscribe_for_client=True, presence=True, join_leave=True))
    client = harness.connect("ann", "news")
    subscription = client.session.subscriptions["news"]
    for _ in range(3):
        harness.node.memberships.remove(subscription, 0)
    assert harness.calls.completed[-2:] == [f"presence_remove news {client.id}", f"announce news leave {client.id}"]
    assert sum(" leave " in call for call in harness.calls.completed) == 1


def test_entry_with_new_info_is_not_added_after_the_subscription_ended() -> None:
    """The update may be on its way when the subscription ends."""

    async def scenario() -> None:
        harness = NodeHarness(WITH_JOIN_LEAVE)
        client = harness.connect("ann", "news")
        harness.calls.hold("presence_add")
        harness.send_control(RefreshSessions(Selector(user="ann"), info=b'"new"'))
        await settle()
        client.request("unsubscribe", channel="news")
        harness.calls.release("presence_add")
        await settle()
        assert harness.present_clients("news") == set()

    asyncio.run(scenario())


def test_unsubscribe_and_subscribe_with_a_slow_engine() -> None:
    """The client is present, and the others see a leave and then a join."""

    async def scenario() -> None:
        harness = NodeHarness(WITH_JOIN_LEAVE)
        subscriber, client = harness.connect("bob", "news"), harness.connect("ann", "news")
        subscriber.receive()
        harness.calls.hold("presence_remove")
        client.send("unsubscribe", channel="news")
        client.send("subscribe", channel="news")
        await settle()
        harness.calls.release("presence_remove")
        await settle()
        client.receive()
        assert harness.present_clients("news") == {subscriber.id, client.id}
        assert announcements(subscriber) == [f"leave {client.id}", f"join {client.id}"]

    asyncio.run(scenario())
