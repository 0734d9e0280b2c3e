"""Messages of clients of the plain protocol against its documentation, row by row."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from beaconfire.base.errors import BAD_REQUEST, INTERNAL, METHOD_NOT_FOUND, CommandError
from beaconfire.model.identity import NAME_LENGTH_MAX
from beaconfire.model.position import SincePosition
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.protocols.centrifuge.requests import (
    ConnectRequest,
    HistoryRequest,
    InvalidRequest,
    PingRequest,
    PresenceRequest,
    RefreshRequest,
    Request,
    RoomMessage,
    SubRefreshRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from beaconfire.protocols.port import Codec
from tests.unit.protocols.plain.frames import CODEC, LOBBY, NO_MESSAGES, decode, decoded

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


@pytest.mark.parametrize(("frame", "binary"), NO_MESSAGES)
def test_a_frame_that_is_no_message_is_error_107_without_a_lobby(frame: bytes, binary: bool) -> None:
    """A message is a text frame with an object with a string `type`. Everything else is rejected, including binary
    frames and extreme nesting.
    """
    request = decode(frame, binary=binary).request
    assert isinstance(request, InvalidRequest)
    assert request.code is BAD_REQUEST
    assert "`type`" in request.detail


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
