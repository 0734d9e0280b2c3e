"""Reads the most common input of a WebSocket: one small message, whole in one frame and one read.

A picows parser with its buffers is most of an idle connection's memory and the largest part of a connect's cost. For a
client that connects, subscribes and answers pings, the parser only unmasks a few bytes. So a connection starts with
this reader, which keeps no state. At the first other input (a second frame in the same read, a part of a frame, a
control frame, a fragment, a large message or a violation) a `FrameReader` replaces this reader permanently and gets the
same bytes. Violations of RFC 6455 are detected only by the `FrameReader`.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from beaconfire.transports.websocket.framing import BINARY, RSV1, TEXT

READ_BUFFER_BYTES = 16 * 1024
"""The size of the read buffer that all connections of an event loop share."""

_FINAL = 0x80
_MASKED = 0x80
_LENGTH_16 = 126


class MessageListener(Protocol):
    """The connection, as `SingleFrameReader` sees it."""

    @property
    def is_open(self) -> bool:
        """Whether messages are accepted."""

    @property
    def message_size_limit(self) -> int:
        """In bytes."""

    @property
    def read_buffer(self) -> memoryview:
        """The read buffer of all connections of this event loop."""

    def on_whole_message(self, data: bytes, binary: bool, compressed: bool = False) -> None:
        """One message. The connection is open."""

    def read_frames(self, data: bytes) -> None:
        """Replaces the reader with a `FrameReader`, which reads `data` first."""

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def on_lost(self) -> None:
        """The socket is closed."""


class SingleFrameReader(asyncio.BufferedProtocol):
    """The asyncio protocol of an open WebSocket, until a read is not exactly one small message.

    Connections share the read buffer: the data is copied out before their event loop does anything else. Two event
    loops may run at the same time, each in its own thread, so each has a buffer of its own.
    """

    __slots__ = ("_buffer", "_connection")

    def __init__(self, connection: MessageListener) -> None:
        self._connection = connection
        self._buffer = connection.read_buffer  # takes no memory: objects with one or two fields have the same size

    def get_buffer(self, size_hint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, count: int) -> None:
        connection, data = self._connection, bytes(self._buffer[:count])
        payload = parse_single_frame(data, connection.message_size_limit) if connection.is_open else None
        if payload is None:
            connection.read_frames(data)
        else:
            connection.on_whole_message(payload, data[0] == _FINAL | BINARY)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._connection.on_lost()


class CompressedSingleFrameReader(SingleFrameReader):
    """The same for connections with compression, because many of their clients compress every message."""

    __slots__ = ()

    def buffer_updated(self, count: int) -> None:
        if not self._buffer[0] & RSV1:
            super().buffer_updated(count)
            return
        connection, data = self._connection, bytes(self._buffer[:count])
        head = data[0] & ~RSV1
        payload = (
            parse_single_frame(bytes((head,)) + data[1:], connection.message_size_limit) if connection.is_open else None
        )
        if payload is None:
            connection.read_frames(data)
        else:
            connection.on_whole_message(payload, head == _FINAL | BINARY, compressed=True)


def parse_single_frame(data: bytes, size_limit: int) -> bytes | None:
    """The unmasked payload, if `data` is exactly one final masked frame of text or bytes; None otherwise."""
    if len(data) < 6 or data[0] not in (_FINAL | TEXT, _FINAL | BINARY) or not data[1] & _MASKED:
        return None
    length, start = data[1] & ~_MASKED, 6
    if length == _LENGTH_16:
        length, start = int.from_bytes(data[2:4], "big"), 8
        if length < _LENGTH_16:
            return None  # not the shortest form of the length, which is a violation
    elif length > _LENGTH_16:
        return None
    if len(data) != start + length or length > size_limit:
        return None
    mask = data[start - 4 : start] * (length // 4 + 1)
    unmasked = int.from_bytes(data[start:], "little") ^ int.from_bytes(mask[:length], "little")
    return unmasked.to_bytes(length, "little")
