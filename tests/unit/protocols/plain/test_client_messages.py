"""Messages of clients of the plain protocol against its documentation, row by row."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from beaconfire.base.errors import BAD_REQUEST, INTERNAL, METHOD_NOT_FOUND, CommandError
from beaconfire.model.identity import NAME_LENGTH_MAX
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest
from beaconfire.protocols.plain import server_messages
from beaconfire.protocols.plain.requests import (
    ClientPing,
    InvalidMessage,
    LeaveRoom,
    PlainRequest,
    RoomHistory,
    RoomMessage,
    RoomPresence,
    RoomRefresh,
    TokenRefresh,
)
from tests.unit.kit import NodeHarness
from tests.unit.protocols.plain.frames import NO_MESSAGES, decode, decoded, with_and_without_lobby

REQUESTS: list[tuple[str, PlainRequest]] = [
    ('{"type":"handshake"}', ConnectionRequest()),
    ('{"type":"handshake","user":"ann"}', ConnectionRequest(user="ann")),
    ('{"type":"handshake","token":"jwt","data":{"a": 1}}', ConnectionRequest(token="jwt", data=Raw(b'{"a": 1}'))),
    ('{"type":"handshake","user":null,"token":null}', ConnectionRequest()),
    (f'{{"type":"handshake","user":"{"é" * NAME_LENGTH_MAX}"}}', ConnectionRequest(user="é" * NAME_LENGTH_MAX)),
    ('{"type":"join","room":"kitchen"}', SubscriptionRequest("kitchen", recoverable=True)),
    (
        '{"type":"join","room":"$k","token":"jwt","since":null}',
        SubscriptionRequest("$k", "jwt", recoverable=True),
    ),
    (
        '{"type":"join","room":"k","since":{"offset":5,"epoch":"ab"}}',
        SubscriptionRequest("k", since=StreamPosition(5, "ab"), recoverable=True),
    ),
    ('{"type":"join","room":"k","since":{}}', SubscriptionRequest("k", since=StreamPosition(0, ""), recoverable=True)),
    (
        '{"type":"join","room":"k","since":{"offset":null,"epoch":null}}',
        SubscriptionRequest("k", since=StreamPosition(0, ""), recoverable=True),
    ),
    (
        '{"type":"history","room":"data","since":{"offset":3,"epoch":null}}',
        RoomHistory("data", 100, StreamPosition(3, "")),
    ),
    ('{"type":"leave","room":"kitchen"}', LeaveRoom("kitchen")),
    ('{"type":"message","room":"k","data":{"text": "hi"}}', RoomMessage("k", Raw(b'{"text": "hi"}'))),
    ('{"type":"message","room":"k","data":null,"echo":true}', RoomMessage("k", Raw(b"null"), echo=True)),
    ('{"type":"message","room":"k","data":[1,\n2 ],"echo":null}', RoomMessage("k", Raw(b"[1,\n2 ]"))),
    ('{"data":1e400,"room":"k","type":"message","what":[{}]}', RoomMessage("k", Raw(b"1e400"))),
    ('{"type":"presence","room":"kitchen"}', RoomPresence("kitchen")),
    ('{"type":"history","room":"k"}', RoomHistory("k", 100)),
    ('{"type":"history","room":"k","limit":0,"reverse":null}', RoomHistory("k", 0)),
    (
        '{"type":"history","room":"k","limit":7,"since":{"offset":3,"epoch":"e"},"reverse":true}',
        RoomHistory("k", 7, StreamPosition(3, "e"), reverse=True),
    ),
    ('{"type":"refresh","token":"jwt"}', TokenRefresh("jwt")),
    ('{"type":"refresh","token":"jwt","room":"$k"}', RoomRefresh("$k", "jwt")),
    ('{"type":"ping"}', ClientPing()),
    (' { "type" : "ping" } ', ClientPing()),
]


@with_and_without_lobby
@pytest.mark.parametrize(("frame", "expected"), REQUESTS)
def test_each_message_becomes_its_request(frame: str, expected: PlainRequest, lobby: bool) -> None:
    """Every row of the table of client messages, with and without optional fields, with and without a lobby."""
    command = decode(frame, lobby)
    assert command.request == expected
    assert command.ref is not None


def test_missing_data_is_the_empty_payload() -> None:
    """Encoders omit a payload only if it is this object, so its identity matters."""
    request = decode('{"type":"handshake"}').request
    assert isinstance(request, ConnectionRequest)
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


@pytest.mark.parametrize("debug_reasons", [False, True])
@with_and_without_lobby
@pytest.mark.parametrize(("frame", "field"), MALFORMED)
def test_the_error_for_a_malformed_message_names_the_field(
    frame: str, field: str, lobby: bool, debug_reasons: bool
) -> None:
    """A message of a known type never becomes a lobby frame. The error names the field whether `debug_reasons` is on or
    off.
    """
    command = decode(frame, lobby)
    assert isinstance(command.request, InvalidMessage)
    assert command.request.code is BAD_REQUEST
    client = NodeHarness(debug_reasons=debug_reasons).open_plain_session("lobby" if lobby else None)
    client.send_text(frame)
    [answer] = client.receive()
    assert (answer["type"], answer["code"]) == ("error", 107)
    assert field in answer["detail"]


def test_the_error_for_a_malformed_message_has_its_id() -> None:
    """So the client knows which of its messages was rejected."""
    client = NodeHarness().open_plain_session()
    client.send_text('{"type":"join","id":"a"}')
    [answer] = client.receive()
    assert (answer["id"], answer["code"]) == ("a", 107)


def test_an_unknown_type_is_error_104_without_a_lobby() -> None:
    """The error lists the known types."""
    request = decode('{"type":"jion","room":"k","id":3}').request
    assert isinstance(request, InvalidMessage)
    assert request.code is METHOD_NOT_FOUND
    client = NodeHarness().open_plain_session()
    client.send_text('{"type":"jion","room":"k","id":3}')
    [answer] = client.receive()
    assert (answer["id"], answer["code"]) == (3, 104)
    assert "join" in answer["detail"]


@pytest.mark.parametrize(("frame", "binary"), NO_MESSAGES)
def test_a_frame_that_is_no_message_is_error_107_without_a_lobby(frame: bytes, binary: bool) -> None:
    """A message is a text frame with an object with a string `type`. Everything else is rejected, including binary
    frames and extreme nesting.
    """
    request = decode(frame, binary=binary).request
    assert isinstance(request, InvalidMessage)
    assert request.code is BAD_REQUEST
    assert "`type`" in request.detail


@with_and_without_lobby
def test_a_lone_surrogate_is_replaced_in_a_message(lobby: bool) -> None:
    """As in the Centrifuge protocol."""
    request = decode(b'{"type":"message","room":"k","data":"a\\ud83d"}', lobby).request
    assert isinstance(request, RoomMessage)
    assert json.loads(bytes(request.data)) == "a\ufffd"


@with_and_without_lobby
def test_a_message_that_is_nested_too_deeply_is_rejected(lobby: bool) -> None:
    """All protocols have the same limit, because a publication must be deliverable in all of them."""
    frame = b'{"type":"message","room":"k","data":' + b"[" * 700 + b"]" * 700 + b"}"
    assert isinstance(decode(frame, lobby).request, InvalidMessage)


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
    ref = decode(json.dumps({"type": kind, **fields})).ref
    assert ref is not None
    answer = decoded(server_messages.encode_error(ref, CommandError(INTERNAL), ""))
    identifier = fields.get("id")
    if isinstance(identifier, str):
        assert answer["id"] == identifier
    elif identifier is None or isinstance(identifier, bool | list | dict):
        assert "id" not in answer
