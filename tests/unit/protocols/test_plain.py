"""The codec of the plain protocol against its documentation, row by row."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from beaconfire.base.errors import (
    BAD_REQUEST,
    INTERNAL,
    METHOD_NOT_FOUND,
    CommandError,
    PayloadError,
)
from beaconfire.model.identity import NAME_LENGTH_MAX
from beaconfire.model.position import SincePosition
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
from beaconfire.model.requests import (
    Command,
    ConnectRequest,
    HistoryRequest,
    InvalidRequest,
    LobbyFrame,
    PingRequest,
    Pong,
    PresenceRequest,
    RefreshRequest,
    Request,
    RoomMessage,
    SubRefreshRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from beaconfire.model.results import (
    ConnectResult,
    HistoryResult,
    PingResult,
    PresenceResult,
    PresenceStatsResult,
    PublishResult,
    RefreshResult,
    Result,
    RPCResult,
    SubRefreshResult,
    SubscribeResult,
    UnsubscribeResult,
)
from beaconfire.protocols.plain import PlainCodec, server_messages
from beaconfire.protocols.plain.client_messages import CLIENT_TYPES, SERVER_TYPES
from beaconfire.protocols.port import Codec, Payload

CODEC: Codec = PlainCodec(None)
LOBBY: Codec = PlainCodec("lobby")


def decode(frame: str | bytes, codec: Codec = CODEC, binary: bool = False) -> Command:
    """The only command of a frame."""
    (command,) = codec.decode(frame.encode() if isinstance(frame, str) else frame, binary)
    return command


def ref(kind: str = "ping", identifier: str | None = "1", **fields: object) -> object:
    """The ref of a message of this type for the room `kitchen`. `identifier` is JSON text."""
    message = json.dumps({"type": kind, "room": "kitchen", "data": 0, "token": "t", **fields})
    return decode(message[:-1] + (f', "id": {identifier}}}' if identifier is not None else "}")).ref


def decoded(payload: Payload) -> dict[str, Any]:
    """The message that a client gets in a text frame."""
    assert not payload.binary
    message = json.loads(payload.data)
    assert isinstance(message, dict)
    return message


# --- from the client ---------------------------------------------------------------------------------------------

REQUESTS: list[tuple[str, Request]] = [
    ('{"type":"handshake"}', ConnectRequest()),
    ('{"type":"handshake","user":"ann"}', ConnectRequest(user="ann")),
    ('{"type":"handshake","token":"jwt","data":{"a": 1}}', ConnectRequest(token="jwt", data=Raw(b'{"a": 1}'))),
    ('{"type":"handshake","user":null,"token":null}', ConnectRequest()),
    (f'{{"type":"handshake","user":"{"é" * NAME_LENGTH_MAX}"}}', ConnectRequest(user="é" * NAME_LENGTH_MAX)),
    ('{"type":"join","room":"kitchen"}', SubscribeRequest(channel="kitchen", recoverable=True)),
    (
        '{"type":"join","room":"$k","token":"jwt","since":null}',
        SubscribeRequest(channel="$k", token="jwt", recoverable=True),
    ),
    (
        '{"type":"join","room":"k","since":{"offset":5,"epoch":"ab"}}',
        SubscribeRequest(channel="k", recover=True, offset=5, epoch="ab", recoverable=True),
    ),
    ('{"type":"join","room":"k","since":{}}', SubscribeRequest(channel="k", recover=True, recoverable=True)),
    (
        '{"type":"join","room":"k","since":{"offset":null,"epoch":null}}',
        SubscribeRequest(channel="k", recover=True, recoverable=True),
    ),
    (
        '{"type":"history","room":"data","since":{"offset":3,"epoch":null}}',
        HistoryRequest(channel="data", limit=100, since=SincePosition(3)),
    ),
    ('{"type":"leave","room":"kitchen"}', UnsubscribeRequest(channel="kitchen")),
    ('{"type":"message","room":"k","data":{"text": "hi"}}', RoomMessage("k", Raw(b'{"text": "hi"}'))),
    ('{"type":"message","room":"k","data":null,"echo":true}', RoomMessage("k", Raw(b"null"), echo=True)),
    ('{"type":"message","room":"k","data":[1,\n2 ],"echo":null}', RoomMessage("k", Raw(b"[1,\n2 ]"))),
    ('{"data":1e400,"room":"k","type":"message","what":[{}]}', RoomMessage("k", Raw(b"1e400"))),
    ('{"type":"presence","room":"kitchen"}', PresenceRequest(channel="kitchen")),
    ('{"type":"history","room":"k"}', HistoryRequest(channel="k", limit=100)),
    ('{"type":"history","room":"k","limit":0,"reverse":null}', HistoryRequest(channel="k", limit=0)),
    (
        '{"type":"history","room":"k","limit":7,"since":{"offset":3,"epoch":"e"},"reverse":true}',
        HistoryRequest(channel="k", limit=7, since=SincePosition(3, "e"), reverse=True),
    ),
    ('{"type":"refresh","token":"jwt"}', RefreshRequest(token="jwt")),
    ('{"type":"refresh","token":"jwt","room":"$k"}', SubRefreshRequest(channel="$k", token="jwt")),
    ('{"type":"ping"}', PingRequest()),
    (' { "type" : "ping" } ', PingRequest()),
]


@pytest.mark.parametrize("codec", [CODEC, LOBBY], ids=["lobby off", "lobby on"])
@pytest.mark.parametrize(("frame", "expected"), REQUESTS)
def test_each_message_becomes_its_request(frame: str, expected: Request, codec: Codec) -> None:
    """Every row of the table of client messages, with and without optional fields, with and without a lobby."""
    command = decode(frame, codec)
    assert command.request == expected
    assert command.ref is not None


def test_missing_data_is_the_empty_payload() -> None:
    """Encoders omit a payload only if it is this object, so its identity matters."""
    request = decode('{"type":"handshake"}').request
    assert isinstance(request, ConnectRequest)
    assert request.data is NO_PAYLOAD


MALFORMED: list[tuple[str, str]] = [
    ('{"type":"join"}', "room"),
    ('{"type":"join","room":""}', "room"),
    ('{"type":"join","room":7}', "room"),
    ('{"type":"join","room":null}', "room"),
    ('{"type":"join","room":"k","since":5}', "since"),
    ('{"type":"join","room":"k","since":{"offset":-1}}', "since.offset"),
    ('{"type":"join","room":"k","since":{"offset":"5"}}', "since.offset"),
    ('{"type":"join","room":"k","since":{"offset":99999999999999999999}}', "since.offset"),
    ('{"type":"join","room":"k","token":5}', "token"),
    ('{"type":"leave"}', "room"),
    ('{"type":"message","room":"k"}', "data"),
    ('{"type":"message","data":1}', "room"),
    ('{"type":"message","room":"k","data":1,"echo":"yes"}', "echo"),
    ('{"type":"presence"}', "room"),
    ('{"type":"history","room":"k","limit":-1}', "limit"),
    ('{"type":"history","room":"k","limit":"all"}', "limit"),
    ('{"type":"history","room":"k","reverse":1}', "reverse"),
    ('{"type":"refresh"}', "token"),
    ('{"type":"refresh","token":"t","room":1}', "room"),
    ('{"type":"handshake","user":42}', "user"),
    (f'{{"type":"handshake","user":"{"x" * (NAME_LENGTH_MAX + 1)}"}}', "user"),
    ('{"type":"ping","id":true}', "id"),
    ('{"type":"ping","id":{}}', "id"),
]


@pytest.mark.parametrize("codec", [CODEC, LOBBY], ids=["lobby off", "lobby on"])
@pytest.mark.parametrize(("frame", "field"), MALFORMED)
def test_the_error_for_a_malformed_message_names_the_field(frame: str, field: str, codec: Codec) -> None:
    """A message of a known type never becomes a lobby frame. The error names the field whether `debug_reasons` is on or
    off.
    """
    command = decode(frame, codec)
    assert isinstance(command.request, InvalidRequest)
    assert command.request.code is BAD_REQUEST
    answer = codec.encode_error(command.ref, CommandError(command.request.code, command.request.detail), "")
    assert decoded(answer)["code"] == 107
    assert field in decoded(answer)["detail"]


def test_the_error_for_a_malformed_message_has_its_id() -> None:
    """So the client knows which of its messages was rejected."""
    command = decode('{"type":"join","id":"a"}')
    assert decoded(CODEC.encode_error(command.ref, CommandError(BAD_REQUEST, "x"), ""))["id"] == "a"


def test_an_unknown_type_is_error_104_without_a_lobby() -> None:
    """The error lists the known types."""
    command = decode('{"type":"jion","room":"k","id":3}')
    assert isinstance(command.request, InvalidRequest)
    assert command.request.code is METHOD_NOT_FOUND
    answer = decoded(CODEC.encode_error(command.ref, CommandError(METHOD_NOT_FOUND, command.request.detail), ""))
    assert (answer["id"], answer["code"]) == (3, 104)
    assert "join" in answer["detail"]


NO_MESSAGES: list[tuple[bytes, bool]] = [
    (b"hello", False),
    (b"", False),
    (b"5", False),
    (b'"text"', False),
    (b"[]", False),
    (b"{}", False),
    (b'{"type":5}', False),
    (b'{"type":null}', False),
    (b'{"type":"ping"', False),
    (b'{"type":"ping"}x', False),
    ("\ufeff{}".encode(), False),
    (b"[" * 100_000, False),
    (b'{"type":"ping"}', True),
    (b"\xff\x00", True),
    (b"", True),
]


@pytest.mark.parametrize(("frame", "binary"), NO_MESSAGES)
def test_a_frame_that_is_no_message_is_error_107_without_a_lobby(frame: bytes, binary: bool) -> None:
    """A message is a text frame with an object with a string `type`. Everything else is rejected, including binary
    frames and extreme nesting.
    """
    request = decode(frame, binary=binary).request
    assert isinstance(request, InvalidRequest)
    assert request.code is BAD_REQUEST
    assert "`type`" in request.detail


@pytest.mark.parametrize(("frame", "binary"), [*NO_MESSAGES, (b'{"type":"what", "a": 1}\n', False)])
def test_a_lobby_frame_is_delivered_unchanged(frame: bytes, binary: bool) -> None:
    """The publication is JSON for clients of other protocols. Clients of the plain protocol get the same bytes
    as sent.
    """
    command = decode(frame, LOBBY, binary)
    assert command.ref is None
    assert isinstance(command.request, LobbyFrame)
    json.loads(bytes(command.request.data))
    publication = Publication(command.request.data, ClientInfo("", "c"), 4, command.request.tags)
    assert LOBBY.encode_push(PublicationPush("lobby", publication)) == Payload(frame, binary)


@pytest.mark.parametrize(
    ("frame", "binary", "data", "tag"),
    [
        (b' {"a": 1}', False, b' {"a": 1}', "json"),
        ("烽火".encode(), False, '"烽火"'.encode(), "text"),
        (b"\xff\x00", True, b'"/wA="', "binary"),
    ],
)
def test_a_lobby_frame_for_other_protocols(frame: bytes, binary: bool, data: bytes, tag: str) -> None:
    """JSON stays the same, other text becomes a JSON string, bytes become base64. A tag names the form."""
    assert decode(frame, LOBBY, binary).request == LobbyFrame(Raw(data), {"frame": tag})


@pytest.mark.parametrize(
    ("data", "tags"),
    [
        (b'"hi"', None),
        (b'"hi"', {}),
        (b'"hi"', {"frame": "picture"}),
        (b'"not base64!"', {"frame": "binary"}),
        ('"ä"'.encode(), {"frame": "binary"}),
        (b"{}", {"frame": "binary"}),
        (b"[]", {"frame": "text"}),
    ],
)
def test_other_publications_in_the_lobby_are_messages(data: bytes, tags: dict[str, str] | None) -> None:
    """An SDK or the server API can publish in the lobby channel, too, even with a tag that does not match the data."""
    pushed = decoded(LOBBY.encode_push(PublicationPush("lobby", Publication(Raw(data), tags=tags))))
    assert pushed == {
        "type": "message",
        "room": "lobby",
        "data": json.loads(data),
        **({"tags": tags} if tags is not None else {}),
    }


def test_the_frame_tag_is_ignored_outside_the_lobby() -> None:
    """Otherwise any publisher could send raw frames to the clients of any room."""
    push = PublicationPush("kitchen", Publication(Raw(b'"x"'), tags={"frame": "text"}))
    assert decoded(LOBBY.encode_push(push))["type"] == "message"
    assert decoded(CODEC.encode_push(PublicationPush("lobby", push.pub)))["type"] == "message"


SPOOFS: list[bytes] = [
    *(json.dumps({"type": kind, "id": 1}).encode() for kind in sorted(SERVER_TYPES)),
    b' {"id":1,"\\u0074ype":"a\\u0063k"}',
    b'{"type":"chat","type":"ack"}',
    b'{"type":5,"type":"ack"}',
    b'{"type":"ack","x":"\\ud800"}',
    b'{"type":"ack","x":"\\ud800","n":' + b"9" * 5000 + b"}",
    b'{"type":"ack","x":' + b"[" * 2000 + b"]" * 2000 + b"}",
]


@pytest.mark.parametrize("codec", [CODEC, LOBBY], ids=["lobby off", "lobby on"])
@pytest.mark.parametrize("frame", SPOOFS)
def test_clients_cannot_send_messages_of_the_server(frame: bytes, codec: Codec) -> None:
    """The lobby rejects any frame that a browser would decode as a message of the server, however it is encoded."""
    assert isinstance(decode(frame, codec).request, InvalidRequest)


@pytest.mark.parametrize("codec", [CODEC, LOBBY], ids=["lobby off", "lobby on"])
def test_a_lone_surrogate_is_replaced_in_a_message(codec: Codec) -> None:
    """As in the Centrifuge protocol."""
    request = decode(b'{"type":"message","room":"k","data":"a\\ud83d"}', codec).request
    assert isinstance(request, RoomMessage)
    assert json.loads(bytes(request.data)) == "a\ufffd"


@pytest.mark.parametrize("codec", [CODEC, LOBBY], ids=["lobby off", "lobby on"])
def test_a_message_that_is_nested_too_deeply_is_rejected(codec: Codec) -> None:
    """All protocols have the same limit, because a publication must be deliverable in all of them."""
    frame = b'{"type":"message","room":"k","data":' + b"[" * 700 + b"]" * 700 + b"}"
    assert isinstance(decode(frame, codec).request, InvalidRequest)


def test_a_lone_surrogate_is_allowed_in_a_lobby_frame() -> None:
    """For other protocols such a frame is published as text."""
    frame = b'{"type":"chat","x":"\\ud800"}'
    command = decode(frame, LOBBY)
    assert command.request == LobbyFrame(Raw(json.dumps(frame.decode()).encode()), {"frame": "text"})


def test_server_types_lists_all_types_of_server_messages() -> None:
    """A new type of server message must be added to this list."""
    types = {str(kind.__struct_config__.tag) for kind in server_messages._ServerMessage.__subclasses__()}
    assert types - CLIENT_TYPES == SERVER_TYPES


@given(st.text() | st.recursive(st.none() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_text_frame_is_one_command(value: object) -> None:
    """No text raises, and the lobby delivers every accepted text unchanged."""
    frame = value if isinstance(value, str) else json.dumps(value)
    assert isinstance(decode(frame).request, InvalidRequest)
    command = decode(frame, LOBBY)
    assert isinstance(command.request, LobbyFrame)
    push = PublicationPush("lobby", Publication(command.request.data, tags=command.request.tags))
    assert LOBBY.encode_push(push) == Payload(frame.encode())


@given(st.binary())
def test_any_binary_frame_is_one_command(frame: bytes) -> None:
    """No bytes raise, and the lobby delivers all bytes unchanged."""
    assert isinstance(decode(frame, binary=True).request, InvalidRequest)
    command = decode(frame, LOBBY, binary=True)
    assert isinstance(command.request, LobbyFrame)
    push = PublicationPush("lobby", Publication(command.request.data, tags=command.request.tags))
    assert LOBBY.encode_push(push) == Payload(frame, binary=True)


KINDS = ["handshake", "join", "leave", "message", "presence", "history", "refresh", "ping", "other"]
FIELDS = ["id", "room", "data", "user", "token", "since", "limit", "reverse", "echo", "offset", "epoch"]
VALUES = st.recursive(
    # Infinity and NaN are not JSON.
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_any_object_can_be_answered_with_an_error(kind: str, fields: dict[str, object]) -> None:
    """Whatever the fields contain, there is one command, its error reply is JSON, and a valid id is returned."""
    command = decode(json.dumps({"type": kind, **fields}))
    answer = decoded(CODEC.encode_error(command.ref, CommandError(INTERNAL), ""))
    identifier = fields.get("id")
    if isinstance(identifier, str):
        assert answer["id"] == identifier
    elif identifier is None or isinstance(identifier, bool | list | dict):
        assert "id" not in answer


# --- from the server ---------------------------------------------------------------------------------------------

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

RESULTS: list[tuple[str, Result, dict[str, Any]]] = [
    ("handshake", ConnectResult("c1", "0.1"), {"type": "welcome", "id": 1, "client": "c1", "version": "0.1"}),
    (
        "handshake",
        ConnectResult("c1", "0.1", True, 60, Raw(b"[1]"), {"#ann": SubscribeResult(epoch="e", offset=2)}),
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
    ("join", SubscribeResult(), {"type": "joined", "id": 1, "room": "kitchen"}),
    (
        "join",
        SubscribeResult(recoverable=True, positioned=True, epoch="e", expires=True, ttl=9, data=Raw(b"{}")),
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
        SubscribeResult(epoch="e", offset=7, was_recovering=True, recovered=True, publications=[STORED]),
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
        SubscribeResult(epoch="e", offset=9, was_recovering=True),
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
    ("leave", UnsubscribeResult(), {"type": "left", "id": 1, "room": "kitchen"}),
    ("message", PublishResult(), {"type": "ack", "id": 1}),
    ("message", PublishResult(7, "e"), {"type": "ack", "id": 1, "offset": 7, "epoch": "e"}),
    (
        "presence",
        PresenceResult({"c1": ANN, "c2": ClientInfo("", "c2")}),
        {
            "type": "presence",
            "id": 1,
            "room": "kitchen",
            "clients": {"c1": ANN_SHOWN, "c2": {"user": "", "client": "c2"}},
        },
    ),
    (
        "history",
        HistoryResult([STORED], "e", 8),
        {"type": "history", "id": 1, "room": "kitchen", "messages": [STORED_SHOWN], "offset": 8, "epoch": "e"},
    ),
    (
        "history",
        HistoryResult([], "e", 0),
        {"type": "history", "id": 1, "room": "kitchen", "messages": [], "offset": 0, "epoch": "e"},
    ),
    (
        "refresh",
        SubRefreshResult(True, 60),
        {"type": "refreshed", "id": 1, "room": "kitchen", "expires": True, "ttl": 60},
    ),
    ("ping", PingResult(), {"type": "pong", "id": 1}),
]


@pytest.mark.parametrize(("kind", "result", "expected"), RESULTS)
def test_each_result_becomes_its_reply(kind: str, result: Result, expected: dict[str, Any]) -> None:
    """Every reply of the table of server messages, with and without optional fields, with and without an id."""
    assert decoded(CODEC.encode_reply(ref(kind), result)) == expected
    nameless = {name: value for name, value in expected.items() if name != "id"}
    for identifier in (None, "null"):
        assert decoded(CODEC.encode_reply(ref(kind, identifier), result)) == nameless


def test_the_reply_to_a_connection_refresh_has_no_room() -> None:
    """Only the refresh of a subscription belongs to a room."""
    connection = decode('{"type":"refresh","token":"t","id":1}').ref
    assert decoded(CODEC.encode_reply(connection, RefreshResult("c1", "0.1", True, 60))) == {
        "type": "refreshed",
        "id": 1,
        "expires": True,
        "ttl": 60,
    }


@pytest.mark.parametrize("identifier", ["0", "7", "-1", "1.50", "1e3", "12345678901234567890123", '""', '"a\\u00e4"'])
def test_ids_are_returned_unchanged(identifier: str) -> None:
    """Numbers are not rounded and strings are not re-encoded."""
    answer = CODEC.encode_reply(ref(identifier=identifier), PingResult())
    assert answer.data == b'{"type":"pong","id":' + identifier.encode() + b"}"


def test_an_error_reply_has_code_message_and_temporary() -> None:
    """The detail of an error that does not describe the message itself is included only if the caller allows it."""
    error = CommandError(INTERNAL, "the database is at 10.0.0.7")
    assert decoded(CODEC.encode_error(ref("join"), error, "")) == {
        "type": "error",
        "id": 1,
        "room": "kitchen",
        "code": 100,
        "message": "internal server error",
        "temporary": True,
    }
    assert decoded(CODEC.encode_error(ref("join", None), CommandError(BAD_REQUEST), "why")) == {
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
    assert decoded(CODEC.encode_push(push)) == expected


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
    results: list[Result] = [
        ConnectResult("c", "v", data=raw),
        SubscribeResult(data=raw),
        HistoryResult([Publication(raw)], "e", 1),
        PresenceResult({"c": member}),
    ]
    for result in results:
        with pytest.raises(PayloadError):
            CODEC.encode_reply(ref(), result)


def test_impossible_calls_raise_assertion_errors() -> None:
    """Results of commands that this protocol does not have, replies without a ref, and application-level pings are
    bugs.
    """
    for result in (RPCResult(), PresenceStatsResult(1, 1)):
        with pytest.raises(AssertionError):
            CODEC.encode_reply(ref(), result)
    with pytest.raises(AssertionError):
        CODEC.encode_reply(None, PingResult())
    with pytest.raises(AssertionError):
        CODEC.encode_error(None, CommandError(INTERNAL), "")
    with pytest.raises(AssertionError):
        CODEC.encode_ping()
    assert not isinstance(decode('{"type":"ping"}').request, Pong)


def test_the_lobby_uses_standard_base64() -> None:
    """So that any backend can decode it."""
    request = decode(bytes(range(256)), LOBBY, binary=True).request
    assert isinstance(request, LobbyFrame)
    assert base64.b64decode(json.loads(bytes(request.data))) == bytes(range(256))
