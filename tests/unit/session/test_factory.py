"""The session of a new connection, and the lobby."""

from __future__ import annotations

import asyncio

import pytest

from beaconfire.base.errors import BAD_PROTOCOL, PERMISSION_DENIED, CommandError, Disconnect, EngineUnavailable
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.events import ConnectionOpened, InternalError
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.node.cluster import Selector, UnsubscribeSessions
from beaconfire.transports.traits import Pings, SessionTraits
from tests.fakes.transport import HANDSHAKE
from tests.unit.kit import OPEN, NodeHarness, settle

WITH_JOIN_LEAVE = ChannelOptions(
    allow_subscribe_for_client=True,
    allow_subscribe_for_anonymous=True,
    presence=True,
    join_leave=True,
    force_push_join_leave=True,
)


def test_every_session_has_its_own_client_id() -> None:
    """A session is counted from the start."""
    harness = NodeHarness()
    first, second = harness.open_session(), harness.open_plain_session()
    assert first.id != second.id
    assert harness.recorder.of(ConnectionOpened) == [
        ConnectionOpened("test", "centrifuge-json", first.id),
        ConnectionOpened("test", "plain", second.id),
    ]
    statistics = harness.node.statistics()
    assert (statistics.connections, statistics.sessions) == (2, 0)


def test_handshake_is_kept_until_the_session_has_connected() -> None:
    """Connections that are open for long must not keep their headers. A plain session may still connect later."""
    harness = NodeHarness(allow_anonymous=False)
    native, refused, gone, plain = (
        harness.open_session(),
        harness.open_session(),
        harness.open_session(),
        harness.open_plain_session("lobby"),
    )
    for client in (native, refused, gone, plain):
        assert client.session.handshake is HANDSHAKE
    harness.tokens.connections.known["t"] = Identity("ann")
    harness.tokens.connections.known["old"] = Identity("ann", expire_at_unix_s=1)
    native.request("connect", token="t")
    assert refused.request_code("connect", token="old") == 110
    gone.drop_connection()
    for client in (native, refused, gone):
        assert client.session.handshake is None
    plain.send_plain(type="handshake", token="old")
    assert plain.session.handshake is HANDSHAKE
    plain.send_plain(type="handshake", token="t")
    assert plain.session.handshake is None


def test_traits_may_be_given_for_one_connection() -> None:
    """Otherwise the traits of the endpoint apply."""
    harness = NodeHarness()
    own = SessionTraits(Pings.TRANSPORT)
    assert harness.open_session(own).session.traits is own
    assert harness.open_session().session.traits == SessionTraits()


def test_every_connection_is_subscribed_to_the_lobby() -> None:
    """The subscription needs no permission, and has no position, presence, join and leave."""
    harness = NodeHarness(WITH_JOIN_LEAVE)
    subscriber = harness.connect("ann", "lobby")
    client = harness.open_plain_session("lobby")
    assert subscriber.receive() == []
    assert harness.present_clients("lobby") == {subscriber.id}
    harness.publish("lobby", 1)
    assert [message["data"] for message in client.receive()] == [1]
    client.drop_connection()
    assert [push["pub"]["data"] for push in subscriber.receive_pushes()] == [1]
    closed = NodeHarness(ChannelOptions()).open_plain_session("lobby")
    closed.harness.publish("lobby", 1)
    assert len(closed.receive()) == 1


def test_without_a_lobby_a_new_session_has_no_subscription() -> None:
    """A frame that is not a message is an error."""
    harness = NodeHarness()
    client = harness.open_plain_session()
    assert client.session.subscriptions == {}
    client.send_text("hello")
    assert [message["code"] for message in client.receive()] == [107]
    assert client.disconnect_code == 0


def test_clients_may_leave_and_join_the_lobby_by_name() -> None:
    """Joining twice is error 105. A client that has left gets no lobby frames, and may still send them."""
    harness = NodeHarness(WITH_JOIN_LEAVE)
    client, other = harness.open_plain_session("lobby"), harness.open_plain_session("lobby")
    assert client.send_plain(type="join", room="lobby")[0]["code"] == 105
    assert client.send_plain(type="leave", room="lobby")[0]["type"] == "left"
    other.send_text("[1]")
    assert client.receive() == []
    client.send_text("[2]")
    assert client.receive() == []
    other.receive()
    assert other.transport.writes == [b"[1]\n", b"[2]\n"]
    assert [message["type"] for message in client.send_plain(type="join", room="lobby")] == ["joined", "join"]
    other.send_text("[3]")
    client.harness.run_scheduled()
    assert client.transport.writes[-1] == b"[3]\n"


def test_joining_the_lobby_by_name_needs_permission() -> None:
    """Only the subscription of a new connection needs none."""
    harness = NodeHarness(ChannelOptions())
    client = harness.open_plain_session("lobby")
    client.send_plain(type="leave", room="lobby")
    assert client.send_plain(type="join", room="lobby")[0]["code"] == PERMISSION_DENIED.code


def test_lobby_subscription_survives_a_failed_handshake_and_the_server_api() -> None:
    """The subscription belongs to the connection, not to the user."""
    harness = NodeHarness(OPEN, allow_anonymous=False)
    harness.recorder.expects_errors = True
    client = harness.open_plain_session("lobby")
    harness.calls.fail_next("verify", CommandError(PERMISSION_DENIED))
    assert client.send_plain(type="handshake", token="x")[0]["code"] == 103
    assert set(client.session.subscriptions) == {"lobby"}
    harness.calls.fail_next("verify", RuntimeError("broken"))
    assert client.send_plain(type="handshake", token="x")[0]["code"] == 100
    assert set(client.session.subscriptions) == {"lobby"}
    harness.tokens.connections.known["ann"] = Identity(user="ann", channels={"news": SubscriptionGrant()})
    harness.calls.fail_next("attach", OSError("no link"))
    assert client.send_plain(type="handshake", token="ann")[0]["code"] == 100
    assert set(client.session.subscriptions) == {"lobby"}
    assert client.session.user == "", "the failed handshake leaves the session anonymous"
    harness.send_control(UnsubscribeSessions(Selector(client=client.id)))
    assert set(client.session.subscriptions) == {"lobby"}


def test_server_api_does_not_end_the_lobby_subscription_of_named_users() -> None:
    """The server API may ask to unsubscribe from every channel."""
    harness = NodeHarness(WITH_JOIN_LEAVE)
    client = harness.open_plain_session("lobby")
    assert client.send_plain(type="handshake", user="ann")[0]["type"] == "welcome"
    client.send_plain(type="join", room="news")
    harness.send_control(UnsubscribeSessions(Selector(client=client.id)))
    assert set(client.session.subscriptions) == {"lobby"}


def test_lobby_is_not_in_the_welcome_message() -> None:
    """The field `rooms` has only the rooms of the user's token."""
    client = NodeHarness().open_plain_session("lobby")
    [welcome] = client.send_plain(type="handshake", id=1)
    assert "rooms" not in welcome


def test_a_token_may_name_the_lobby() -> None:
    """The subscription stays as it is."""
    harness = NodeHarness()
    client = harness.open_plain_session("lobby")
    harness.tokens.connections.known["t"] = Identity(user="ann", channels={"lobby": SubscriptionGrant()})
    assert client.send_plain(type="handshake", token="t")[0]["type"] == "welcome"
    assert harness.node.hub.count("lobby") == 1
    harness.publish("lobby", 1)
    assert len(client.receive()) == 1


def test_lobby_counts_against_the_channel_limit() -> None:
    """A connection in the lobby may have one channel less."""
    client = NodeHarness(WITH_JOIN_LEAVE, channel_limit=2).open_plain_session("lobby")
    assert client.send_plain(type="join", room="a")[0]["type"] == "joined"
    assert client.send_plain(type="join", room="b")[0]["code"] == 106


@pytest.mark.parametrize(
    "failure", [OSError("no link"), EngineUnavailable("attach: no link"), Disconnect(BAD_PROTOCOL)]
)
def test_failed_attach_of_the_lobby_ends_the_session(failure: Exception) -> None:
    """A session that stays open would get nothing of the lobby. The next connection attaches again."""
    harness = NodeHarness()
    harness.recorder.expects_errors = True
    harness.calls.fail_next("attach", failure)
    client = harness.open_plain_session("lobby")
    assert client.disconnect_code == (3501 if isinstance(failure, Disconnect) else 3004)
    assert len(harness.recorder.of(InternalError)) == isinstance(failure, OSError)
    other = harness.open_plain_session("lobby")
    harness.publish("lobby", 1)
    assert len(other.receive()) == 1
    assert harness.node.hub.statistics().subscriptions == 1


def test_connection_that_ends_during_the_attach_leaves_the_lobby() -> None:
    """Nothing stays attached."""

    async def scenario() -> None:
        harness = NodeHarness()
        harness.calls.hold("attach")
        client = harness.open_plain_session("lobby")
        client.drop_connection()
        harness.advance_time(5)
        harness.calls.release("attach")
        await settle()
        assert harness.attached_channels() == 0
        assert harness.node.hub.statistics().subscriptions == 0

    asyncio.run(scenario())
