"""Compressed messages (permessage-deflate, RFC 7692 section 7.2): frames out, and bounded inflating in.

Every message is compressed by itself, so there is one `CompressedWire` for all connections of a codec that agreed to
the same window, and fan-out compresses once for each window in use, of which there is nearly always one. Inflating
stops as soon as the result exceeds the limit, whatever was sent.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from beaconfire.protocols.port import Codec, Frame, Payload
from beaconfire.transports.websocket.closing import (
    INVALID_DATA,
    MESSAGE_TOO_BIG,
    ProtocolViolation,
    too_big,
)
from beaconfire.transports.websocket.extensions import WINDOW_BITS
from beaconfire.transports.websocket.framing import BINARY, RSV1, TEXT, WebSocketWire, frame_header

COMPRESSED_BYTES_MAX = 256 * 1024
"""What is larger is sent as it is: compressing it would hold up the event loop for longer than a slice of fan-out."""

_MEMORY_LEVEL = 5
"""Small tables: clearing those of zlib's default takes longer than compressing a message of 2 KB does."""

_TAIL = b"\x00\x00\xff\xff"
"""Ends every flushed message; not sent (RFC 7692 section 7.2.1)."""

_FINISH = b"\x03\x00"
"""An empty final block: only a message that was complete before can end with it."""


class CompressedWire(WebSocketWire):
    """A codec on WebSocket framing for those who negotiated compression with this window.

    A message is compressed unless it is smaller than `min_size` bytes, larger than COMPRESSED_BYTES_MAX, or would not
    become smaller. Messages that are joined are compressed as one.
    """

    __slots__ = ("_level", "_min_size", "_window_bits")

    def __init__(self, codec: Codec, min_size: int, level: int, window_bits: int = WINDOW_BITS) -> None:
        super().__init__(codec)
        self._min_size = min_size
        self._level = level
        self._window_bits = window_bits

    def pack(self, payloads: Sequence[Payload]) -> Frame:
        """All payloads in order, in as few WebSocket frames as may be, each compressed or not."""
        return b"".join([self._frame(data, binary) for data, binary in self._messages(payloads)])

    def _frame(self, data: bytes, binary: bool) -> Frame:
        opcode = BINARY if binary else TEXT
        if self._min_size <= len(data) <= COMPRESSED_BYTES_MAX:
            compressed = deflate(data, self._level, self._window_bits)
            if len(compressed) < len(data):
                return frame_header(RSV1 | opcode, len(compressed)) + compressed
        return frame_header(opcode, len(data)) + data


def deflate(data: bytes, level: int, window_bits: int = WINDOW_BITS) -> bytes:
    """The payload of a compressed message (RFC 7692 section 7.2.1), for a receiver with a window of 2**window_bits."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -window_bits, _MEMORY_LEVEL)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]


def compressed_size_limit(size_limit: int) -> int:
    """How large a message of `size_limit` bytes may be when it is compressed: a little larger, if it cannot be."""
    return size_limit + size_limit // 64 + 64


class Inflater:
    """Inflates one message, whole or in fragments, and holds no more than the limit."""

    __slots__ = ("_decompressor", "_left", "_limit", "_taken")

    def __init__(self, size_limit: int) -> None:
        """`size_limit` bounds the inflated bytes, and with a little more the compressed ones."""
        self._decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
        self._limit = size_limit
        self._left = size_limit
        self._taken = 0

    def add(self, data: bytes, final: bool) -> bytes:
        """What the next fragment inflates to. Raises ProtocolViolation: 1009 beyond the limit, 1007 for garbage."""
        self._taken += len(data)
        if self._taken > compressed_size_limit(self._limit):  # even if nothing comes of it
            raise ProtocolViolation(MESSAGE_TOO_BIG, too_big(self._limit))
        decompressor = self._decompressor
        try:
            inflated = self._inflate(data)
            ended = decompressor.eof
            if final and not ended:
                inflated += self._inflate(_TAIL + _FINISH)
                if not decompressor.eof or decompressor.unused_data:
                    raise _garbage()
        except zlib.error:
            raise _garbage() from None
        # A sender may end a message with a final block instead, and an empty one behind it (section 7.2.3.4).
        if decompressor.unused_data not in (b"", b"\x00"):
            raise _garbage()
        return inflated

    def _inflate(self, data: bytes) -> bytes:
        inflated = self._decompressor.decompress(data, self._left + 1)
        self._left -= len(inflated)
        if self._left < 0:
            raise ProtocolViolation(MESSAGE_TOO_BIG, too_big(self._limit))
        return inflated


def _garbage() -> ProtocolViolation:
    return ProtocolViolation(INVALID_DATA, "message cannot be inflated")
