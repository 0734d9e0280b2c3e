"""The unidirectional Centrifuge protocol."""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.pushes import (
    DisconnectPush,
    JoinPush,
    MessagePush,
    PublicationPush,
)
from beaconfire.protocols.centrifuge.requests import ConnectRequest
from beaconfire.protocols.centrifuge.results import ConnectResult
from beaconfire.protocols.centrifuge.unidirectional_codec import UnidirectionalCodec
from beaconfire.protocols.port import ProtocolError

CODEC = UnidirectionalCodec()


@pytest.mark.parametrize("data", [b"", b"{}", b" \n"])
def test_a_connect_request_may_be_empty(data: bytes) -> None:
    """An empty body is a connect request without fields."""
    (command,) = CODEC.decode(data, False)
    assert command.request == ConnectRequest()


def test_a_connect_request_has_the_fields_of_a_command() -> None:
    """The same fields as in a connect command."""
    (command,) = CODEC.decode(b'{"token":"t","subs":{"a":{"recover":true,"offset":4,"epoch":"e"}}}', False)
    assert isinstance(command.request, ConnectRequest)
    assert command.request.token == "t"
    assert command.request.subs["a"].offset == 4


DEEP = b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}"


@pytest.mark.parametrize(
    "data", [b"[]", b'{},"publish":{}', b"{}{}", b"{}\n{}", b"{", b'"x"', b"\xff", b'{"token":1}', DEEP]
)
def test_an_invalid_connect_request_is_rejected(data: bytes) -> None:
    """The text cannot inject another command."""
    with pytest.raises(ProtocolError):
        CODEC.decode(data, False)


def test_messages_have_no_envelope() -> None:
    """Each message is the content of a reply or a push."""
    info = ClientInfo("ann", "c1")
    publication = Publication(data=Raw(b'{"x":\n1}'), offset=3)
    messages = [
        CODEC.encode_reply(1, ConnectResult(client="c", version="v")),
        CODEC.encode_push(PublicationPush("room", publication)),
        CODEC.encode_push(JoinPush("room", info)),
        CODEC.encode_push(MessagePush(Raw(b"1"))),
        CODEC.encode_push(DisconnectPush(3001, "shutdown", True)),
        CODEC.encode_ping(),
    ]
    assert all(b"\n" not in data for data, _ in messages)
    assert [json.loads(data) for data, _ in messages] == [
        {"connect": {"client": "c", "version": "v"}},
        {"channel": "room", "pub": {"data": {"x": 1}, "offset": 3}},
        {"channel": "room", "join": {"info": {"user": "ann", "client": "c1"}}},
        {"message": {"data": 1}},
        {"disconnect": {"code": 3001, "reason": "shutdown", "reconnect": True}},
        {},
    ]
