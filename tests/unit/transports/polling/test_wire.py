"""Frames that keep their messages apart."""

from __future__ import annotations

from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.port import Payload
from beaconfire.transports.polling import PollWire


def test_frames_hold_the_messages() -> None:
    """In order. The size is that of all messages, in bytes."""
    codec = JsonCodec()
    wire = PollWire(codec)
    frame = wire.pack([Payload(b"{}"), Payload("{…}".encode())])
    assert list(frame.messages) == [b"{}", "{…}".encode()]
    assert len(frame) == 2 + 5
    assert wire.codec is codec
