"""Compressed messages (permessage-deflate, RFC 7692 section 7.2): compression of frames, and inflating with a limit.

Every message is compressed independently. So all connections of a codec with the same negotiated window share one
`CompressedWire`, and fan-out compresses once for each window in use: nearly always once. Inflating stops as soon as the
result exceeds the limit.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from beaconfire.protocols.port import Codec, Payload
from beaconfire.transports.websocket.closing import INVALID_DATA, ProtocolViolation
from beaconfire.transports.websocket.extensions import WINDOW_BITS
from beaconfire.transports.websocket.framing import BINARY, RSV1, TEXT, WebSocketWire, frame_header
from beaconfire.transports.websocket_messages import MESSAGE_TOO_BIG, join_payloads, too_big

COMPRESSED_BYTES_MAX = 256 * 1024
"""A larger message is not compressed: compressing it would block the event loop for longer than a slice of fan-out."""

_MEMORY_LEVEL = 5
"""Makes zlib's tables small: clearing the default tables takes longer than compressing a message of 2 KB."""

_TAIL = b"\x00\x00\xff\xff"
"""The end of every flushed message, which is not sent (RFC 7692 section 7.2.1)."""

_FINISH = b"\x03\x00"
"""An empty final block. It ends the stream only if the message before it is complete."""


class CompressedWire(WebSocketWire):
    """A codec on WebSocket framing, for connections that negotiated compression with this window.

    A message is compressed unless it is smaller than `min_size` bytes, larger than COMPRESSED_BYTES_MAX, or would not
    become smaller. Joined messages are compressed as one.
    """

    __slots__ = ("_level", "_min_size", "_window_bits")

    def __init__(self, codec: Codec, min_size: int, level: int, window_bits: int = WINDOW_BITS) -> None:
        super().__init__(codec)
        self._min_size = min_size
        self._level = level
        self._window_bits = window_bits

    def pack(self, payloads: Sequence[Payload]) -> bytes:
        """All payloads in order, in as few WebSocket frames as possible, each compressed or not."""
        return b"".join([self._frame(data, binary) for data, binary in join_payloads(payloads, self._separator)])

    def _frame(self, data: bytes, binary: bool) -> bytes:
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
    """The largest compressed size of a message of `size_limit` bytes. Data that cannot be compressed becomes larger."""
    return size_limit + size_limit // 64 + 64


class Inflater:
    """Inflates one message, whole or in fragments. Holds no more bytes than the limit."""

    __slots__ = ("_compressed_size", "_decompressor", "_limit", "_remaining")

    def __init__(self, size_limit: int) -> None:
        """`size_limit` limits the inflated bytes, and `compressed_size_limit(size_limit)` the compressed bytes."""
        self._decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
        self._limit = size_limit
        self._remaining = size_limit
        self._compressed_size = 0

    def add(self, data: bytes, final: bool) -> bytes:
        """Returns the inflated data of the next fragment.

        Raises ProtocolViolation: 1009 beyond the limit, 1007 for data that cannot be inflated.
        """
        self._compressed_size += len(data)
        if self._compressed_size > compressed_size_limit(self._limit):  # even if it inflates to nothing
            raise ProtocolViolation(MESSAGE_TOO_BIG, too_big(self._limit))
        decompressor = self._decompressor
        try:
            inflated = self._inflate(data)
            ended = decompressor.eof
            if final and not ended:
                inflated += self._inflate(_TAIL + _FINISH)
                if not decompressor.eof or decompressor.unused_data:
                    raise _invalid_data()
        except zlib.error:
            raise _invalid_data() from None
        # A sender may end a message with a final block, followed by an empty one (section 7.2.3.4).
        if decompressor.unused_data not in (b"", b"\x00"):
            raise _invalid_data()
        return inflated

    def _inflate(self, data: bytes) -> bytes:
        inflated = self._decompressor.decompress(data, self._remaining + 1)
        self._remaining -= len(inflated)
        if self._remaining < 0:
            raise ProtocolViolation(MESSAGE_TOO_BIG, too_big(self._limit))
        return inflated


def _invalid_data() -> ProtocolViolation:
    return ProtocolViolation(INVALID_DATA, "message cannot be inflated")
