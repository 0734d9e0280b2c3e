"""Packing of payloads into WebSocket frames."""

from __future__ import annotations

import pytest

from beaconfire.model.pushes import Push
from beaconfire.protocols.port import Payload
from beaconfire.transports.websocket.framing import (
    WebSocketWire,
    control_frame,
    frame_header,
)
from beaconfire.transports.websocket_messages import JOINED_BYTES_MAX


class StubCodec:
    """A codec with only the attributes that a wire uses."""

    name = "stub"

    def __init__(self, separator: bytes | None) -> None:
        self.separator = separator

    def encode_push(self, push: Push) -> Payload:
        raise NotImplementedError


LINES = WebSocketWire(StubCodec(b"\n"))
CONCATENATED = WebSocketWire(StubCodec(b""))
SINGLES = WebSocketWire(StubCodec(None))


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, "8100"),
        (125, "817d"),
        (126, "817e007e"),
        (127, "817e007f"),
        (65535, "817effff"),
        (65536, "817f0000000000010000"),
    ],
)
def test_header_lengths(length: int, header: str) -> None:
    """The length has the shortest of its three forms, and the frame is not masked."""
    assert frame_header(1, length).hex() == header


def test_control_frame() -> None:
    """The frame is final and unmasked."""
    assert control_frame(0xA, b"abc") == b"\x8a\x03abc"


def test_single_payload() -> None:
    """One payload is one frame, text or binary."""
    text, binary = LINES.pack([Payload(b"{}")]), CONCATENATED.pack([Payload(b"\x00", True)])
    assert text == b"\x81\x02{}"
    assert binary == b"\x82\x01\x00"


def test_messages_are_joined_by_the_separator() -> None:
    """In order, with the separator only between messages."""
    lines = LINES.pack([Payload(b"1"), Payload(b"2"), Payload(b"3")])
    assert lines == b"\x81\x051\n2\n3"
    assert CONCATENATED.pack([Payload(b"1", True), Payload(b"2", True)]) == b"\x82\x0212"


def test_without_separator_each_message_has_its_frame() -> None:
    """Messages are not joined."""
    frame = SINGLES.pack([Payload(b"1"), Payload(b"2", True)])
    assert frame == b"\x81\x011\x82\x012"


def test_text_and_binary_are_not_joined() -> None:
    """A change of kind starts a new frame; the order is kept."""
    frame = LINES.pack([Payload(b"a"), Payload(b"b"), Payload(b"c", True), Payload(b"d")])
    assert frame == b"\x81\x03a\nb\x82\x01c\x81\x01d"


def test_joined_messages_have_a_maximum_size() -> None:
    """At most 64 KiB. A larger payload has its own frame."""
    half = b"x" * (JOINED_BYTES_MAX // 2)
    fits = LINES.pack([Payload(half), Payload(half[1:])])
    assert fits == frame_header(1, JOINED_BYTES_MAX) + half + b"\n" + half[1:]
    too_much = LINES.pack([Payload(half), Payload(half)])
    part = frame_header(1, len(half)) + half
    assert too_much == part + part
    huge = b"y" * (JOINED_BYTES_MAX + 1)
    mixed = LINES.pack([Payload(b"a"), Payload(huge), Payload(b"b"), Payload(b"c")])
    assert mixed == b"\x81\x01a" + frame_header(1, len(huge)) + huge + b"\x81\x03b\nc"


def test_wire_has_its_codec() -> None:
    """Sessions get their codec from the wire."""
    codec = StubCodec(b"")
    assert WebSocketWire(codec).codec is codec
