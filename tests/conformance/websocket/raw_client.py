"""A WebSocket client on a blocking socket that sends exactly the given bytes, valid or not."""

from __future__ import annotations

import socket
import ssl
import struct
import zlib
from types import TracebackType
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HEADERS = (
    ("Host", "localhost"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", KEY),
)


class Received(NamedTuple):
    opcode: int
    payload: bytes


class Response(NamedTuple):
    status: int
    headers: dict[str, str]


def client_frame(
    opcode: int,
    payload: bytes = b"",
    final: bool = True,
    reserved: int = 0,
    mask: bytes | None = b"\x37\xfa\x21\x3d",
    length_bytes: int | None = None,
) -> bytes:
    """A frame. `length_bytes` (0, 2 or 8) overrides the shortest form of the length."""
    size = len(payload)
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 65536 else 8
    mask_bit = 0x80 if mask is not None else 0
    head = bytes((final << 7 | reserved << 4 | opcode, mask_bit | {0: size, 2: 126, 8: 127}[length_bytes]))
    if length_bytes:
        head += size.to_bytes(length_bytes, "big")
    if mask is None:
        return head + payload
    pattern = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ pattern).to_bytes(size, "big")


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return client_frame(CLOSE, struct.pack("!H", code) + reason)


def request(path: str = "/ws", headers: tuple[tuple[str, str], ...] = HEADERS, method: str = "GET") -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


class RawClient:
    """One TCP connection. Everything times out after ten seconds."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None, receive_buffer: int = 0) -> None:
        plain = socket.socket()
        if receive_buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.settimeout(10)
        plain.connect(("127.0.0.1", port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = tls.wrap_socket(plain, server_hostname="localhost") if tls else plain
        self._buffer = b""

    @classmethod
    def open(
        cls,
        port: int,
        path: str = "/ws",
        tls: ssl.SSLContext | None = None,
        receive_buffer: int = 0,
        extensions: str = "",
    ) -> RawClient:
        """A client whose handshake has been accepted. `extensions` are the offered ones."""
        peer = cls(port, tls, receive_buffer)
        offers = (("Sec-WebSocket-Extensions", extensions),) if extensions else ()
        peer.send(request(path, HEADERS + offers))
        assert peer.response().status == 101
        return peer

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def response(self) -> Response:
        """The head of an HTTP response."""
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return Response(int(status_line.split(" ")[1]), {name.lower(): value for name, value in headers.items()})

    def frame(self) -> Received:
        """The next frame from the server, which must be final and unmasked, with the shortest form of the length."""
        head, frame = self._frame()
        assert head & 0x70 == 0, "reserved bits"
        return frame

    def message(self, window_bits: int = 12) -> tuple[bool, Received]:
        """The next message: whether it was compressed, and the inflated message.

        It must be compressed without the context of earlier messages. It is inflated in small steps, so that a
        reference beyond the window is detected.
        """
        head, frame = self._frame()
        assert head & 0x30 == 0, "reserved bits"
        if not head & 0x40:
            return False, frame
        assert frame.opcode in (TEXT, BINARY)
        inflater = zlib.decompressobj(-window_bits)
        rest, inflated = frame.payload + b"\x00\x00\xff\xff", bytearray()
        while piece := inflater.decompress(rest, 256):
            inflated += piece
            rest = inflater.unconsumed_tail
        return True, Received(frame.opcode, bytes(inflated))

    def _frame(self) -> tuple[int, Received]:
        head = self._read_bytes(2)
        assert head[0] & 0x80, "not final"
        assert not head[1] & 0x80, "masked"
        size = head[1]
        if size == 126:
            size = int.from_bytes(self._read_bytes(2), "big")
            assert size > 125
        elif size == 127:
            size = int.from_bytes(self._read_bytes(8), "big")
            assert size > 65535
        return head[0], Received(head[0] & 0xF, self._read_bytes(size))

    def frames_until_end(self) -> list[Received]:
        """All frames until the server closes or resets the connection."""
        frames: list[Received] = []
        try:
            while True:
                frames.append(self.frame())
        except EOFError:
            return frames

    def rest(self) -> bytes:
        """All bytes until the end of the connection."""
        try:
            while True:
                self._receive()
        except EOFError:
            rest, self._buffer = self._buffer, b""
            return rest

    def exchange(self, *parts: bytes) -> list[Received]:
        """Sends parts and a close frame, and returns the server's frames before its close frame."""
        self.send(*parts, close_frame(4999))
        frames = self.frames_until_end()
        assert frames[-1] == Received(CLOSE, struct.pack("!H", 4999)), frames[-3:]
        return frames[:-1]

    def send_until_close(self, *parts: bytes) -> tuple[list[Received], int]:
        """Sends parts that make the server close. Returns the frames before its close frame, and the code."""
        self.send(*parts)
        *frames, last = self.frames_until_end()
        assert last.opcode == CLOSE, last
        return frames, int.from_bytes(last.payload[:2], "big")

    def _read_bytes(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._receive()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _receive(self) -> None:
        try:
            data = self.socket.recv(1 << 20)
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        if not data:
            raise EOFError
        self._buffer += data
