"""Messages of a protocol become WebSocket frames (RFC 6455 section 5.2, the unmasked direction)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import groupby

from beaconfire.protocols.port import Codec, Frame, Payload

TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA

RSV1 = 0x40
"""Beside the opcode of a message's first frame: the message is compressed (RFC 7692 section 6)."""

JOINED_BYTES_MAX = 64 * 1024
"""How much one WebSocket message may hold when several protocol messages share it; a single one may be larger."""

_FINAL = 0x80
_LENGTH_16 = struct.Struct("!BBH").pack
_LENGTH_64 = struct.Struct("!BBQ").pack


def frame_header(opcode: int, length: int) -> bytes:
    """The head of a final, unmasked frame whose payload has `length` bytes. `opcode` may have RSV1 beside it."""
    if length < 126:
        return bytes((_FINAL | opcode, length))
    if length < 65536:
        return _LENGTH_16(_FINAL | opcode, 126, length)
    return _LENGTH_64(_FINAL | opcode, 127, length)


def control_frame(opcode: int, payload: bytes) -> bytes:
    """A whole close, ping or pong frame; at most 125 bytes of payload."""
    return bytes((_FINAL | opcode, len(payload))) + payload


class WebSocketWire:
    """A codec on WebSocket framing.

    Where the codec has a separator, messages that are sent together share WebSocket messages of up to 64 KiB;
    otherwise each has one of its own. Either way the client gets them in order, and all at once.
    """

    __slots__ = ("_codec", "_separator")

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._separator = codec.separator

    @property
    def codec(self) -> Codec:
        return self._codec

    def pack(self, payloads: Sequence[Payload]) -> Frame:
        """All payloads in order, in as few WebSocket frames as may be."""
        if len(payloads) == 1:
            data, binary = payloads[0]
            return frame_header(BINARY if binary else TEXT, len(data)) + data
        return b"".join(
            [
                part
                for data, binary in self._messages(payloads)
                for part in (frame_header(BINARY if binary else TEXT, len(data)), data)
            ]
        )

    def _messages(self, payloads: Sequence[Payload]) -> Iterator[tuple[bytes, bool]]:
        """The WebSocket messages that carry the payloads: data and whether it is binary."""
        separator = self._separator
        if separator is None:
            yield from payloads
            return
        for binary, group in groupby(payloads, key=_is_binary):
            waiting: list[bytes] = []
            size = 0
            for data, _ in group:
                if waiting and size + len(separator) + len(data) > JOINED_BYTES_MAX:
                    yield separator.join(waiting), binary
                    waiting, size = [], 0
                size += len(data) + (len(separator) if waiting else 0)
                waiting.append(data)
            yield separator.join(waiting), binary


def _is_binary(payload: Payload) -> bool:
    return payload.binary
