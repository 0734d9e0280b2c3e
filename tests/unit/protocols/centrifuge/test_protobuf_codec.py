"""The Protobuf codec beyond field numbers. The conformance vectors test the exact bytes."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.base.errors import PERMISSION_DENIED, CommandError, PayloadError
from beaconfire.model.publication import NO_PAYLOAD, ClientInfo, Publication
from beaconfire.model.pushes import MessagePush, PublicationPush, UnsubscribePush
from beaconfire.protocols.centrifuge import schema_pb2 as wire
from beaconfire.protocols.centrifuge.connection import CentrifugeCodec
from beaconfire.protocols.centrifuge.protobuf_codec import ProtobufCodec
from beaconfire.protocols.centrifuge.requests import (
    PONG,
    Command,
    ConnectRequest,
    PingRequest,
    PublishRequest,
    SendRequest,
    SubscribeRequest,
)
from beaconfire.protocols.centrifuge.results import ConnectResult, RPCResult, SubscribeResult

CODEC: CentrifugeCodec = ProtobufCodec()


def delimited(body: bytes) -> bytes:
    """The body after its length as a varint."""
    groups = [len(body) >> shift & 0x7F for shift in range(0, max(len(body).bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]]) + body


def decode(*commands: wire.Command) -> list[Command]:
    return list(CODEC.decode(b"".join(delimited(command.SerializeToString()) for command in commands), True))


def test_properties_for_transports() -> None:
    """Messages can share a frame without a separator."""
    assert (CODEC.name, CODEC.separator) == ("centrifuge-protobuf", b"")


@pytest.mark.parametrize("size", [0, 1, 120, 121, 122, 127, 128, 16_000, 16_376, 16_377, 16_384, 70_000, 2_100_000])
def test_varints_of_every_width(size: int) -> None:
    """Messages are decoded and encoded whatever the width of their length."""
    data = b"x" * size
    publish = wire.Command(id=1, publish=wire.PublishRequest(data=data))
    assert decode(publish, wire.Command()) == [Command(1, PublishRequest(data=Raw(data))), Command(None, PONG)]
    body = wire.Reply(push=wire.Push(message=wire.Message(data=data))).SerializeToString()
    assert CODEC.encode_push(MessagePush(Raw(data))).data == delimited(body)


def test_a_length_may_be_wider_than_necessary() -> None:
    """Up to five bytes are accepted for any length."""
    assert CODEC.decode(b"\x80\x80\x80\x80\x00", True) == [Command(None, PONG)]


def test_a_payload_may_be_any_bytes() -> None:
    """Payloads are not interpreted and need not be JSON."""
    data = Raw(b"\xff\x00binary")
    publish = wire.Command(id=1, publish=wire.PublishRequest(channel="a", data=bytes(data)))
    assert decode(publish) == [Command(1, PublishRequest("a", data))]
    info = ClientInfo("42", "c1", chan_info=data)
    pushed = CODEC.encode_push(PublicationPush("a", Publication(data, info=info))).data
    publication = wire.Reply.FromString(pushed[1:]).push.pub
    assert publication.data == publication.info.chan_info == bytes(data)


def test_a_missing_payload_is_the_empty_payload() -> None:
    """Code compares with `is NO_PAYLOAD`. Protobuf does not distinguish missing from empty."""
    (command,) = decode(wire.Command(id=1, publish=wire.PublishRequest(channel="a", data=b"")))
    assert isinstance(command.request, PublishRequest)
    assert command.request.data is NO_PAYLOAD


def test_an_empty_result_is_present() -> None:
    """All fields are zero, and the field of the result is still present."""
    assert CODEC.encode_reply(1, RPCResult(Raw(b""))).data == delimited(b"\x08\x01\x6a\x00")
    anonymous = Publication(info=ClientInfo("", ""))
    assert CODEC.encode_push(PublicationPush("", anonymous)).data == delimited(b"\x22\x04\x22\x02\x2a\x00")
    connected = CODEC.encode_reply(1, ConnectResult("", "", subs={"a": SubscribeResult()}))
    assert "a" in wire.Reply.FromString(connected.data[1:]).connect.subs


def test_the_first_request_counts() -> None:
    """In the order of field numbers."""
    several = wire.Command(id=1, ping=wire.PingRequest(), connect=wire.ConnectRequest(token="t"))
    assert decode(several) == [Command(1, ConnectRequest(token="t"))]


def test_without_an_id_only_send_is_a_request() -> None:
    """Any other command without an id is a pong. `send` has no reply."""
    send = wire.SendRequest(data=b"1")
    assert decode(wire.Command(ping=wire.PingRequest())) == [Command(None, PONG)]
    expected = Command(None, SendRequest(Raw(b"1")))
    assert decode(wire.Command(send=send, ping=wire.PingRequest()), wire.Command(id=5, send=send)) == [expected] * 2


def test_unknown_fields_are_ignored() -> None:
    """A newer client is understood as far as the server knows its fields."""
    subscribe = b"\x0a\x01a" + b"\x80\x01\x02"  # `channel`, and `phase`, which the server does not support.
    body = b"\x08\x01\x2a" + delimited(subscribe) + b"\xa2\x06\x00"
    assert CODEC.decode(delimited(body), True) == [Command(1, SubscribeRequest("a"))]


def test_text_frames_are_accepted() -> None:
    """The kind of the WebSocket frame does not matter."""
    assert CODEC.decode(b"\x04\x08\x01\x5a\x00", False) == [Command(1, PingRequest())]


def test_a_string_that_is_not_unicode_raises_payload_error() -> None:
    """A Python handler can return half of a surrogate pair. It must not break the fan-out."""
    with pytest.raises(PayloadError, match="not Unicode"):
        CODEC.encode_push(UnsubscribePush("a", 2000, "\ud83d"))
    with pytest.raises(PayloadError, match="not Unicode"):
        CODEC.encode_error(1, CommandError(PERMISSION_DENIED), "\ud83d")
