"""Messages of the server in the plain protocol against its documentation, row by row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.errors import BAD_REQUEST, INTERNAL, CommandError, PayloadError
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import NO_PAYLOAD, ClientInfo, Publication
from beaconfire.model.pushes import (
    DisconnectPush,
    JoinPush,
    LeavePush,
    MessagePush,
    PublicationPush,
    Push,
    RefreshPush,
    SubscribePush,
    UnsubscribePush,
)
from beaconfire.model.results import ConnectionStart, SubscriptionStart
from beaconfire.protocols.plain import server_messages
from beaconfire.protocols.plain.client_messages import CLIENT_TYPES, SERVER_TYPES
from beaconfire.protocols.plain.connection import PlainConnection
from beaconfire.protocols.plain.requests import Ref, RoomMessage
from tests.unit.kit import NodeHarness
from tests.unit.protocols.plain.frames import CODEC, decode, decoded, pushed, ref

ANN = ClientInfo("ann", "c1", Raw(b'{"name":"Ann"}'), Raw(b'{"mood": "hot"}'))
ANN_SHOWN = {"user": "ann", "client": "c1", "info": {"name": "Ann"}, "room_info": {"mood": "hot"}}
STORED = Publication(Raw(b'{"text":"hi"}'), ANN, 8, {"a": "b"})
STORED_SHOWN = {
    "type": "message",
    "room": "kitchen",
    "data": {"text": "hi"},
    "offset": 8,
    "tags": {"a": "b"},
    **ANN_SHOWN,
}

REPLIES: list[tuple[str, Callable[[Ref], bytes], dict[str, Any]]] = [
    (
        "handshake",
        lambda ref: server_messages.welcome(ref, "0.1", ConnectionStart("c1")),
        {"type": "welcome", "id": 1, "client": "c1", "version": "0.1"},
    ),
    (
        "handshake",
        lambda ref: server_messages.welcome(
            ref,
            "0.1",
            ConnectionStart("c1", 60, Raw(b"[1]"), [SubscriptionStart("#ann", StreamPosition(2, "e"))]),
        ),
        {
            "type": "welcome",
            "id": 1,
            "client": "c1",
            "version": "0.1",
            "expires": True,
            "ttl": 60,
            "data": [1],
            "rooms": {"#ann": {"type": "joined", "room": "#ann", "offset": 2, "epoch": "e"}},
        },
    ),
    (
        "join",
        lambda ref: server_messages.joined(ref, SubscriptionStart("kitchen")),
        {"type": "joined", "id": 1, "room": "kitchen"},
    ),
    (
        "join",
        lambda ref: server_messages.joined(
            ref,
            SubscriptionStart("kitchen", StreamPosition(0, "e"), recoverable=True, ttl_s=9, data=Raw(b"{}")),
        ),
        {
            "type": "joined",
            "id": 1,
            "room": "kitchen",
            "offset": 0,
            "epoch": "e",
            "data": {},
            "expires": True,
            "ttl": 9,
        },
    ),
    (
        "join",
        lambda ref: server_messages.joined(
            ref,
            SubscriptionStart(
                "kitchen", StreamPosition(7, "e"), was_recovering=True, recovered=True, publications=[STORED]
            ),
        ),
        {
            "type": "joined",
            "id": 1,
            "room": "kitchen",
            "offset": 8,
            "epoch": "e",
            "recovered": True,
            "messages": [STORED_SHOWN],
        },
    ),
    (
        "join",
        lambda ref: server_messages.joined(
            ref, SubscriptionStart("kitchen", StreamPosition(9, "e"), was_recovering=True)
        ),
        {
            "type": "joined",
            "id": 1,
            "room": "kitchen",
            "offset": 9,
            "epoch": "e",
            "recovered": False,
            "messages": [],
        },
    ),
    (
        "join",
        lambda ref: server_messages.joined(
            ref, SubscriptionStart("kitchen", StreamPosition(8, "e"), publications=[STORED])
        ),
        {"type": "joined", "id": 1, "room": "kitchen", "offset": 8, "epoch": "e", "messages": [STORED_SHOWN]},
    ),
    ("leave", server_messages.left, {"type": "left", "id": 1, "room": "kitchen"}),
    ("message", lambda ref: server_messages.ack(ref, StreamPosition(0, "e"), "memory"), {"type": "ack", "id": 1}),
    (
        "message",
        lambda ref: server_messages.ack(ref, StreamPosition(7, "e"), "disk"),
        {"type": "ack", "id": 1, "offset": 7, "epoch": "e", "durability": "disk"},
    ),
    (
        "presence",
        lambda ref: server_messages.presence(ref, {"c1": ANN, "c2": ClientInfo("", "c2")}),
        {
            "type": "presence",
            "id": 1,
            "room": "kitchen",
            "clients": {"c1": ANN_SHOWN, "c2": {"user": "", "client": "c2"}},
        },
    ),
    (
        "history",
        lambda ref: server_messages.history(ref, [STORED], StreamPosition(8, "e")),
        {"type": "history", "id": 1, "room": "kitchen", "messages": [STORED_SHOWN], "offset": 8, "epoch": "e"},
    ),
    (
        "history",
        lambda ref: server_messages.history(ref, [], StreamPosition(0, "e")),
        {"type": "history", "id": 1, "room": "kitchen", "messages": [], "offset": 0, "epoch": "e"},
    ),
    (
        "refresh",
        lambda ref: server_messages.refreshed(ref, 60),
        {"type": "refreshed", "id": 1, "room": "kitchen", "expires": True, "ttl": 60},
    ),
    (
        "refresh",
        lambda ref: server_messages.refreshed(ref, 0),
        {"type": "refreshed", "id": 1, "room": "kitchen"},
    ),
    ("ping", server_messages.pong, {"type": "pong", "id": 1}),
]


@pytest.mark.parametrize(("kind", "encode", "expected"), REPLIES)
def test_each_result_becomes_its_reply(kind: str, encode: Callable[[Ref], bytes], expected: dict[str, Any]) -> None:
    """Every reply of the table of server messages, with and without optional fields, with and without an id."""
    assert decoded(encode(ref(kind))) == expected
    nameless = {name: value for name, value in expected.items() if name != "id"}
    for identifier in (None, "null"):
        assert decoded(encode(ref(kind, identifier))) == nameless


def test_the_reply_to_a_connection_refresh_has_no_room() -> None:
    """Only the refresh of a subscription belongs to a room."""
    connection = decode('{"type":"refresh","token":"t","id":1}').ref
    assert connection is not None
    assert decoded(server_messages.refreshed(connection, 60)) == {
        "type": "refreshed",
        "id": 1,
        "expires": True,
        "ttl": 60,
    }


@pytest.mark.parametrize("identifier", ["0", "7", "-1", "1.50", "1e3", "12345678901234567890123", '""', '"a\\u00e4"'])
def test_ids_are_returned_unchanged(identifier: str) -> None:
    """Numbers are not rounded and strings are not re-encoded."""
    answer = server_messages.pong(ref(identifier=identifier))
    assert answer == b'{"type":"pong","id":' + identifier.encode() + b"}"


def test_an_error_reply_has_code_message_and_temporary() -> None:
    """The detail of an error that does not describe the message itself is included only if the caller allows it."""
    error = CommandError(INTERNAL, "the database is at 10.0.0.7")
    assert decoded(server_messages.encode_error(ref("join"), error, "")) == {
        "type": "error",
        "id": 1,
        "room": "kitchen",
        "code": 100,
        "message": "internal server error",
        "temporary": True,
    }
    assert decoded(server_messages.encode_error(ref("join", None), CommandError(BAD_REQUEST), "why")) == {
        "type": "error",
        "room": "kitchen",
        "code": 107,
        "message": "bad request",
        "detail": "why",
    }


PUSHES: list[tuple[Push, dict[str, Any]]] = [
    (PublicationPush("kitchen", STORED), STORED_SHOWN),
    (PublicationPush("k", Publication(Raw(b"1"))), {"type": "message", "room": "k", "data": 1}),
    (PublicationPush("k", Publication()), {"type": "message", "room": "k", "data": None}),
    (
        PublicationPush("k", Publication(Raw(b"1"), ClientInfo("", "c"), 1, None, "e")),
        {"type": "message", "room": "k", "data": 1, "user": "", "client": "c", "offset": 1, "epoch": "e"},
    ),
    (JoinPush("kitchen", ANN), {"type": "join", "room": "kitchen", **ANN_SHOWN}),
    (LeavePush("k", ClientInfo("", "c")), {"type": "leave", "room": "k", "user": "", "client": "c"}),
    (UnsubscribePush("k", 2500, "gap"), {"type": "left", "room": "k", "code": 2500, "reason": "gap"}),
    (SubscribePush("k"), {"type": "join", "room": "k", "self": True}),
    (
        SubscribePush("k", True, "e", 0, True, Raw(b"{}")),
        {"type": "join", "room": "k", "self": True, "offset": 0, "epoch": "e", "data": {}},
    ),
    (MessagePush(Raw(b'{"to": "you"}')), {"type": "direct", "data": {"to": "you"}}),
    (MessagePush(NO_PAYLOAD), {"type": "direct", "data": None}),
    (RefreshPush(True, 60), {"type": "refreshed", "expires": True, "ttl": 60}),
    (RefreshPush(False, 0), {"type": "refreshed"}),
    (
        DisconnectPush(3001, "shutdown", True),
        {"type": "disconnect", "code": 3001, "reason": "shutdown", "reconnect": True},
    ),
]


@pytest.mark.parametrize(("push", "expected"), PUSHES)
def test_each_push_becomes_its_message(push: Push, expected: dict[str, Any]) -> None:
    """Every push of the table of server messages."""
    assert pushed(push) == expected


def test_payloads_are_embedded_unchanged() -> None:
    """White space, line breaks and number formats stay those of the publisher."""
    data = '{ "n": 1.0e5,\n "名": "烽火" }'.encode()
    request = decode(b'{"type":"message","room":"k","data":' + data + b"}").request
    assert isinstance(request, RoomMessage)
    assert bytes(request.data) == data
    assert data in CODEC.encode_push(PublicationPush("k", Publication(request.data))).data


NOT_JSON = [b"\x00\x01", b"hello", b"{", b'"\xff"', b"1 2", b"01", b"[" * 100_000 + b"]" * 100_000, b" "]


@pytest.mark.parametrize("data", NOT_JSON)
def test_a_payload_that_is_not_json_raises(data: bytes) -> None:
    """In data as well as in info. It would make the whole message invalid."""
    raw, member = Raw(data), ClientInfo("u", "c", Raw(data))
    pushes: list[Push] = [
        PublicationPush("k", Publication(raw)),
        PublicationPush("k", Publication(Raw(b"1"), member)),
        JoinPush("k", member),
        SubscribePush("k", data=raw),
        MessagePush(raw),
    ]
    for push in pushes:
        with pytest.raises(PayloadError):
            CODEC.encode_push(push)
    replies: list[Callable[[], bytes]] = [
        lambda: server_messages.welcome(ref(), "v", ConnectionStart("c", data=raw)),
        lambda: server_messages.welcome(
            ref(), "v", ConnectionStart("c", subscriptions=[SubscriptionStart("k", data=raw)])
        ),
        lambda: server_messages.joined(ref(), SubscriptionStart("k", data=raw)),
        lambda: server_messages.joined(ref(), SubscriptionStart("k", publications=[Publication(raw)])),
        lambda: server_messages.history(ref(), [Publication(raw)], StreamPosition(1, "e")),
        lambda: server_messages.presence(ref(), {"c": member}),
    ]
    for reply in replies:
        with pytest.raises(PayloadError):
            reply()


def test_impossible_calls_raise_assertion_errors() -> None:
    """Replies without a ref, application-level pings, and pushes that this protocol does not know are bugs."""
    connection = NodeHarness().open_plain_session().session.protocol
    assert isinstance(connection, PlainConnection)
    with pytest.raises(AssertionError):
        connection.ping()
    with pytest.raises(AssertionError):
        connection._reply_error(None, CommandError(INTERNAL))
    with pytest.raises(AssertionError):
        server_messages.encode_push(object())  # type: ignore[arg-type]


def test_server_types_lists_all_types_of_server_messages() -> None:
    """A new type of server message must be added to this list."""
    types = {str(kind.__struct_config__.tag) for kind in server_messages._ServerMessage.__subclasses__()}
    assert types - CLIENT_TYPES == SERVER_TYPES
