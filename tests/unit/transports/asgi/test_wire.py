"""Packing of payloads into WebSocket messages of an ASGI server."""

from __future__ import annotations

from beaconfire.protocols.port import Payload
from beaconfire.transports.asgi.wire import MessageWire, MessageWires
from beaconfire.transports.websocket_messages import JOINED_BYTES_MAX
from beaconfire.transports.websocket_request import WebSocketRequest
from tests.unit.transports.websocket.test_framing import StubCodec


def test_payloads_share_messages_up_to_the_limit() -> None:
    """As on our own connections. The size of the frame is that of its messages in bytes."""
    wire = MessageWire(StubCodec(b"\n"))
    half = "x" * (JOINED_BYTES_MAX // 2)
    frame = wire.pack([Payload(half.encode()), Payload(half.encode()), Payload(b"y")])
    assert frame.messages == (half, f"{half}\ny")
    assert len(frame) == 2 * len(half) + 2


def test_kinds_are_kept_apart() -> None:
    """A text is `str`, and its size is counted in bytes."""
    frame = MessageWire(StubCodec(b"\n")).pack([Payload("烽".encode()), Payload(b"\xff", True), Payload(b"a")])
    assert frame.messages == ("烽", b"\xff", "a")
    assert len(frame) == 5


def test_codec_without_separator_has_one_message_per_payload() -> None:
    """In order."""
    assert MessageWire(StubCodec(None)).pack([Payload(b"1"), Payload(b"2")]).messages == ("1", "2")


def test_all_connections_of_a_codec_share_its_wire() -> None:
    """The server negotiates compression itself, so no request selects another wire."""
    wires = MessageWires(StubCodec(b"\n"))
    requests = [WebSocketRequest("/", "", {"sec-websocket-extensions": value}) for value in ("", "permessage-deflate")]
    assert wires.select(requests[0]) == wires.select(requests[1])
    assert wires.select(requests[0])[1] == ""
