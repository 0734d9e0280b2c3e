"""Packs messages of a protocol into WebSocket frames (RFC 6455 section 5.2, unmasked: from the server)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from beaconfire.protocols.port import Codec, Payload
from beaconfire.transports.websocket_messages import join_payloads

TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA

RSV1 = 0x40
"""Set with the opcode of a message's first frame if the message is compressed (RFC 7692 section 6)."""

_FINAL = 0x80
_LENGTH_16 = struct.Struct("!BBH").pack
_LENGTH_64 = struct.Struct("!BBQ").pack


def frame_header(opcode: int, length: int) -> bytes:
    """The header of a final, unmasked frame whose payload has `length` bytes. `opcode` may include RSV1."""
    if length < 126:
        return bytes((_FINAL | opcode, length))
    if length < 65536:
        return _LENGTH_16(_FINAL | opcode, 126, length)
    return _LENGTH_64(_FINAL | opcode, 127, length)


def control_frame(opcode: int, payload: bytes) -> bytes:
    """A whole close, ping or pong frame. The payload has at most 125 bytes."""
    return bytes((_FINAL | opcode, len(payload))) + payload


class WebSocketWire:
    """A codec on WebSocket framing.

    If the codec has a separator, messages that are sent together share WebSocket messages of up to 64 KiB. Otherwise
    each has its own WebSocket message. In both cases the client gets them in order and in one write.
    """

    __slots__ = ("_codec", "_separator")

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._separator = codec.separator

    @property
    def codec(self) -> Codec:
        return self._codec

    def pack(self, payloads: Sequence[Payload]) -> bytes:
        """All payloads in order, in as few WebSocket frames as possible."""
        if len(payloads) == 1:
            data, binary = payloads[0]
            return frame_header(BINARY if binary else TEXT, len(data)) + data
        return b"".join(
            [
                part
                for data, binary in join_payloads(payloads, self._separator)
                for part in (frame_header(BINARY if binary else TEXT, len(data)), data)
            ]
        )
