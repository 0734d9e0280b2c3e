"""A TCP and WebSocket client on a bare socket, which sends any bytes: valid, invalid or incomplete.

The client never reads ahead. Unread data stays in the kernel, so a test that does not read is a slow reader.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tests.acceptance.deadlines import DEADLINE_S

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
"""WebSocket opcodes (RFC 6455 section 5.2)."""

NATIVE_PATH = "/connection/websocket"
"""The WebSocket endpoint of the native protocol."""

PLAIN_PATH = "/ws"
"""The WebSocket endpoint of the plain protocol."""

SMALL_BUFFER = 4096
"""A size in bytes for the receive buffer of a peer that reads nothing: the buffer is full at once."""

_READ_BYTES = 256 * 1024


class WebSocketFrame(NamedTuple):
    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        """The code of a close frame; 1005 if the frame has none (RFC 6455 section 7.1.5)."""
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005


class ResponseHead(NamedTuple):
    """Status and headers of an HTTP response. Header names are in lower case."""

    status: int
    headers: dict[str, str]


class ClosedError(Exception):
    """The server closed the connection. `code` is the code of the close frame, or 1006 if there was none."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


def encode_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    final: bool = True,
    masked: bool = True,
    announced_size: int = -1,
    compressed: bool = False,
) -> bytes:
    """Encodes a client's WebSocket frame (RFC 6455 section 5.2).

    Args:
        announced_size: the length in the frame's header, in bytes; -1 for the real length of the payload.
        compressed: sets the RSV1 bit (RFC 7692); the payload is sent as it is.
    """
    size = len(payload) if announced_size < 0 else announced_size
    mask_bit = 0x80 if masked else 0
    head = bytes([(0x80 if final else 0) | (0x40 if compressed else 0) | opcode])
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 65536:
        head += struct.pack("!BH", mask_bit | 126, size)
    else:
        head += struct.pack("!BQ", mask_bit | 127, size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    pattern = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ pattern).to_bytes(len(payload), "big")


def encode_upgrade_request(path: str = NATIVE_PATH, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """Encodes the HTTP request that opens a WebSocket (RFC 6455 section 4.1)."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def encode_post(path: str, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """Encodes a POST request with its body."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        *(f"{name}: {value}" for name, value in headers),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class RawPeer:
    """One TCP connection to the server. Each wait for the server fails after `DEADLINE_S`."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = bytearray()
        self.upgrade_response = ResponseHead(0, {})
        """The response to the upgrade request."""

    @classmethod
    async def connect_tcp(cls, port: int, receive_buffer: int = 0) -> RawPeer:
        """Opens a TCP connection and sends nothing. A small `receive_buffer` (bytes) fills up quickly."""
        connection = socket.socket()
        connection.setblocking(False)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        except BaseException:
            connection.close()
            raise
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(connection)

    @classmethod
    async def connect_websocket(
        cls, port: int, path: str = NATIVE_PATH, headers: Sequence[tuple[str, str]] = (), receive_buffer: int = 0
    ) -> RawPeer:
        """Opens a WebSocket. Raises AssertionError if the server refuses the upgrade."""
        peer = await cls.connect_tcp(port, receive_buffer)
        try:
            await peer.send(encode_upgrade_request(path, headers))
            response = await peer.read_response_head()
            assert response.status == 101, response
        except BaseException:
            peer.close()
            raise
        peer.upgrade_response = response
        return peer

    async def __aenter__(self) -> RawPeer:
        return self

    async def __aexit__(self, *failure: object) -> None:
        self.close()

    # Sending

    async def send(self, *parts: bytes) -> None:
        """Sends all parts. Raises OSError if the server has reset the connection."""
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.get_running_loop().sock_sendall(self.socket, b"".join(parts))

    async def send_json(self, *messages: dict[str, Any]) -> None:
        """Sends JSON messages in one text frame, one per line."""
        await self.send(encode_frame(TEXT, b"\n".join(json.dumps(message).encode() for message in messages)))

    # Receiving

    async def read_response_head(self) -> ResponseHead:
        """Reads the head of an HTTP response. The body, if any, stays unread."""
        while b"\r\n\r\n" not in self._buffer:
            await self._receive()
        end = self._buffer.index(b"\r\n\r\n")
        status_line, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        headers = dict(line.split(": ", 1) for line in lines)
        return ResponseHead(int(status_line.split(" ")[1]), {name.lower(): value for name, value in headers.items()})

    async def read_response(self) -> ResponseHead:
        """Reads an HTTP response and drops its body, which has a `Content-Length` or is chunked."""
        response = await self.read_response_head()
        if response.headers.get("transfer-encoding") == "chunked":
            while size := int(await self._read_line(), 16):
                await self.read_bytes(size + 2)
            await self._read_line()
        else:
            await self.read_bytes(int(response.headers.get("content-length", "0")))
        return response

    async def read_frame(self) -> WebSocketFrame:
        """Reads the next frame. Raises EOFError if the connection is closed or reset."""
        head = await self.read_bytes(2)
        size = head[1] & 0x7F
        if size == 126:
            size = int.from_bytes(await self.read_bytes(2), "big")
        elif size == 127:
            size = int.from_bytes(await self.read_bytes(8), "big")
        return WebSocketFrame(head[0] & 0xF, bytes(await self.read_bytes(size)))

    async def read_messages(self) -> list[dict[str, Any]]:
        """Reads the JSON messages of the next data frame. Raises ClosedError if the connection is closed."""
        while True:
            try:
                frame = await self.read_frame()
            except EOFError:
                raise ClosedError(1006, "") from None
            if frame.opcode == CLOSE:
                raise ClosedError(frame.close_code, frame.payload[2:].decode())
            if frame.opcode in (TEXT, BINARY):
                return [json.loads(line) for line in frame.payload.split(b"\n")]

    async def read_reply(self, command_id: int = 1) -> dict[str, Any]:
        """Reads the reply to the command with this id. Drops all messages before the reply."""
        while True:
            for message in await self.read_messages():
                if message.get("id") == command_id:
                    return message

    async def read_close_frame(self) -> WebSocketFrame:
        """Reads the server's close frame. Drops all frames before the close frame."""
        while True:
            frame = await self.read_frame()
            if frame.opcode == CLOSE:
                return frame

    async def read_bytes(self, count: int) -> bytearray:
        """Reads exactly `count` bytes. Raises EOFError if the connection is closed before."""
        while len(self._buffer) < count:
            await self._receive()
        taken = self._buffer[:count]
        del self._buffer[:count]
        return taken

    async def read_to_end(self) -> bytes:
        """Reads until the server closes the connection. Returns all bytes that no other method has returned."""
        await self.wait_closed()
        return bytes(self._buffer)

    async def wait_closed(self) -> None:
        """Reads until the server closes or resets the connection."""
        try:
            while True:
                await self._receive()
        except EOFError:
            return

    async def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\r\n"):
            line += await self.read_bytes(1)
        return line[:-2]

    async def _receive(self) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                data = await asyncio.get_running_loop().sock_recv(self.socket, _READ_BYTES)
        except (ConnectionResetError, BrokenPipeError):
            data = b""
        if not data:
            raise EOFError
        self._buffer += data

    # Closing

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Closes the connection with a TCP RST segment, as a crashed machine does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@asynccontextmanager
async def open_peers(count: int, connect: Callable[[], Awaitable[RawPeer]]) -> AsyncIterator[list[RawPeer]]:
    """Opens `count` peers, one after the other. Closes all of them at the end, also if one connect fails."""
    peers: list[RawPeer] = []
    try:
        for _ in range(count):
            peers.append(await connect())  # noqa: PERF401 - peers must be in the list if a later connect fails
        yield peers
    finally:
        for peer in peers:
            peer.close()


async def connect_and_subscribe(peer: RawPeer, channel: str, **options: object) -> str:
    """Connects a session of the native protocol and subscribes to the channel. Returns the client id.

    `options` are fields of the subscribe command.
    """
    await peer.send_json({"id": 1, "connect": {}})
    client_id = str((await peer.read_reply(1))["connect"]["client"])
    await peer.send_json({"id": 2, "subscribe": {"channel": channel, **options}})
    assert "subscribe" in await peer.read_reply(2)
    return client_id
