"""The connection object of the plain protocol: the first message, the lobby, and messages that suspend."""

from __future__ import annotations

import asyncio
import json
from typing import get_args

import pytest
from msgspec import Raw

from beaconfire.base.errors import BAD_REQUEST
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.identity import Identity
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest
from beaconfire.policy.port import DECISIONS
from beaconfire.protocols.plain.connection import _ROWS, PlainConnection
from beaconfire.protocols.plain.requests import (
    ClientPing,
    InvalidMessage,
    LeaveRoom,
    LobbyFrame,
    PlainCommand,
    PlainRequest,
    Ref,
    RoomHistory,
    RoomMessage,
    RoomPresence,
    RoomRefresh,
    TokenRefresh,
)
from beaconfire.protocols.port import CommandOrder, ProtocolConnection
from tests.unit.kit import OPEN, RECOVERABLE, WITH_PRESENCE, HarnessClient, NodeHarness, settle

REQUESTS: list[PlainRequest] = [
    ConnectionRequest(),
    SubscriptionRequest("kitchen"),
    LeaveRoom("kitchen"),
    RoomMessage("kitchen", Raw(b"1")),
    RoomPresence("kitchen"),
    RoomHistory("kitchen", 1),
    TokenRefresh("token"),
    RoomRefresh("kitchen", "token"),
    ClientPing(),
    LobbyFrame(Raw(b"1"), {}),
    InvalidMessage(BAD_REQUEST, "x"),
]
WITHOUT_IDENTITY = (ConnectionRequest, ClientPing, LobbyFrame, InvalidMessage)


def connection_of(client: HarnessClient) -> PlainConnection:
    """mypy checks that it implements the port."""
    protocol: ProtocolConnection = client.session.protocol
    assert isinstance(protocol, PlainConnection)
    return protocol


def test_every_request_has_a_handler() -> None:
    """Each has its own name for metrics, and its decision is one of the port."""
    assert set(_ROWS) == set(get_args(PlainRequest)) == {type(request) for request in REQUESTS}
    assert len({row.method for row in _ROWS.values()}) == len(_ROWS)
    assert {row.decision for row in _ROWS.values()} <= {"", *DECISIONS}


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_messages_suspend_only_with_their_decision(request_: PlainRequest) -> None:
    """A message that never suspends runs without a task. Messages run one after the other."""
    client = NodeHarness(OPEN).connect_plain("ann")
    operations, connection = client.harness.node.operations, connection_of(client)
    command = PlainCommand(Ref(), request_)
    decision = _ROWS[type(request_)].decision
    operations.suspending = frozenset()
    assert connection.never_suspends(command)
    operations.suspending = frozenset({decision} - {""})
    assert connection.never_suspends(command) == (decision == "")
    operations.suspending = frozenset(DECISIONS) - {decision}
    assert connection.never_suspends(command)
    is_message = isinstance(request_, RoomMessage)
    operations.publishes_overlap = True
    assert connection.order(command) is (CommandOrder.OVERLAPPING if is_message else CommandOrder.ALONE)
    operations.publishes_overlap = False
    assert connection.order(command) is CommandOrder.ALONE


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_the_first_message_suspends_if_connecting_does(request_: PlainRequest) -> None:
    """Except messages that need no identity."""
    client = NodeHarness(OPEN).open_plain_session()
    client.harness.node.operations.suspending = frozenset({"connect"})
    never = connection_of(client).never_suspends(PlainCommand(Ref(), request_))
    assert never == (isinstance(request_, WITHOUT_IDENTITY) and not isinstance(request_, ConnectionRequest))


def test_messages_wait_for_the_anonymous_connect_of_the_first() -> None:
    """They are answered in their order, and the client is connected once."""

    async def scenario() -> None:
        harness = NodeHarness(ChannelOptions(allow_subscribe_for_client=True, allow_subscribe_for_anonymous=True))
        client = harness.open_plain_session()
        release = harness.calls.hold("attach")
        for number, kind in enumerate(("join", "leave", "ping"), 1):
            client.send_text(json.dumps({"type": kind, "room": "kitchen", "id": number}))
        await settle()
        assert client.receive() == []
        release()
        await settle()
        assert [(message["type"], message["id"]) for message in client.receive()] == [
            ("joined", 1),
            ("left", 2),
            ("pong", 3),
        ]
        assert len(harness.node.registry) == 1

    asyncio.run(scenario())


def test_a_whole_conversation() -> None:
    """Every message of the table of client messages has its reply, with its id."""
    harness = NodeHarness(RECOVERABLE)
    harness.tokens.connections.known["ann"] = Identity(user="ann")
    client = harness.open_plain_session()
    [welcome] = client.send_plain(type="handshake", token="ann", id=1)
    assert (welcome["type"], welcome["id"], welcome["client"]) == ("welcome", 1, client.id)
    assert welcome["version"] == harness.node.operations.node.product
    [joined] = client.send_plain(type="join", room="kitchen", id=2)
    assert joined == {"type": "joined", "id": 2, "room": "kitchen", "offset": 0, "epoch": "epoch1"}
    [ack] = client.send_plain(type="message", room="kitchen", data="one", id=3)
    assert ack == {"type": "ack", "id": 3, "offset": 1, "epoch": "epoch1", "durability": "memory"}
    echoed = client.send_plain(type="message", room="kitchen", data="two", echo=True, id=4)
    assert sorted(message["type"] for message in echoed) == ["ack", "message"]
    [history] = client.send_plain(type="history", room="kitchen", id=5)
    assert ([message["data"] for message in history["messages"]], history["offset"]) == (["one", "two"], 2)
    [left] = client.send_plain(type="leave", room="kitchen", id=6)
    assert left == {"type": "left", "id": 6, "room": "kitchen"}
    since = {"offset": 1, "epoch": "epoch1"}
    [again] = client.send_plain(type="join", room="kitchen", since=since, id=7)
    assert (again["recovered"], [message["data"] for message in again["messages"]]) == (True, ["two"])


def test_tokens_are_refreshed() -> None:
    """Those of the connection and those of a room. The reply has the time to the next refresh."""
    harness = NodeHarness(OPEN)
    expire_at_unix_s = harness.clock.unix_s() + 60
    identity = Identity(user="ann", expire_at_unix_s=expire_at_unix_s, client_refresh=True)
    harness.tokens.connections.known["ann"] = identity
    harness.tokens.add_subscription("kitchen", "ann", "kitchen", expire_at_unix_s=expire_at_unix_s, client_refresh=True)
    client = harness.open_plain_session()
    [welcome] = client.send_plain(type="handshake", token="ann")
    assert (welcome["expires"], welcome["ttl"]) == (True, 60)
    client.send_plain(type="join", room="kitchen", token="kitchen")
    [of_connection] = client.send_plain(type="refresh", token="ann", id=1)
    assert of_connection == {"type": "refreshed", "id": 1, "expires": True, "ttl": 60}
    [of_room] = client.send_plain(type="refresh", room="kitchen", token="kitchen", id=2)
    assert of_room == {"type": "refreshed", "id": 2, "room": "kitchen", "expires": True, "ttl": 60}


def test_presence_of_a_room() -> None:
    """By client id."""
    client = NodeHarness(WITH_PRESENCE).connect_plain("ann")
    client.send_plain(type="join", room="kitchen")
    [presence] = client.send_plain(type="presence", room="kitchen", id=1)
    assert presence["clients"] == {client.id: {"user": "ann", "client": client.id}}


def test_a_second_handshake_is_an_error() -> None:
    """103, and the session continues with its first identity."""
    harness = NodeHarness(OPEN)
    client = harness.connect_plain("ann")
    harness.tokens.connections.known["bob"] = Identity(user="bob")
    [error] = client.send_plain(type="handshake", token="bob", id=9)
    assert (error["type"], error["code"], error["id"]) == ("error", 103, 9)
    assert (client.session.user, client.disconnect_code) == ("ann", 0)


@pytest.mark.parametrize(("debug_reasons", "shown"), [(False, False), (True, True)])
def test_details_of_refused_messages_need_debug_reasons(debug_reasons: bool, shown: bool) -> None:
    """They describe the server's decision. Only the details of malformed messages are always shown."""
    client = NodeHarness(ChannelOptions(), debug_reasons=debug_reasons).connect_plain("ann")
    [error] = client.send_plain(type="join", room="kitchen", id=1)
    assert (error["code"], error["room"]) == (103, "kitchen")
    assert ("detail" in error) == shown


def test_every_message_counts() -> None:
    """The limits of a client hold for messages of every kind. The message over the limit has no effect."""
    harness = NodeHarness(OPEN, message_rate_limit=3)
    client, other = harness.open_plain_session("lobby"), harness.open_plain_session("lobby")
    for text in ('"one"', '{"type":"ping"}', '{"type":"join"}', '"two"'):
        assert client.disconnect_code == 0
        client.send_text(text)
    assert client.disconnect_code == 3013
    harness.run_scheduled()
    assert other.transport.writes == [b'"one"\n']


# --- the lobby --------------------------------------------------------------------------------------------------------


def test_a_connection_is_in_the_lobby_from_the_start() -> None:
    """Without a handshake and without a permission. Each frame reaches every connection, the sender too."""
    harness = NodeHarness(ChannelOptions(), allow_anonymous=False)
    ann, bob = harness.open_plain_session("lobby"), harness.open_plain_session("lobby")
    ann.send_text('"hello"')
    harness.run_scheduled()
    assert ann.transport.writes == bob.transport.writes == [b'"hello"\n']


def test_there_is_no_lobby_unless_it_is_configured() -> None:
    """The connection is in no channel, and a frame that is no message is an error."""
    client = NodeHarness(OPEN).open_plain_session()
    assert client.session.subscriptions == {}
    client.send_text('"hello"')
    [error] = client.receive()
    assert (error["type"], error["code"]) == ("error", 107)


def test_a_client_may_leave_the_lobby() -> None:
    """It gets no further frames, and its own frames still reach the others."""
    harness = NodeHarness(OPEN)
    leaving, other = harness.open_plain_session("lobby"), harness.open_plain_session("lobby")
    assert leaving.send_plain(type="leave", room="lobby", id=1) == [{"type": "left", "id": 1, "room": "lobby"}]
    leaving.send_text('"hello"')
    harness.run_scheduled()
    assert leaving.receive() == []
    assert other.transport.writes == [b'"hello"\n']
