"""Fake servers for the load programs: real sockets, a thread per connection; the test controls every byte."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.load import MARK

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def frame(payload: bytes, opcode: int = TEXT, final: bool = True) -> bytes:
    """A frame of a server: not masked."""
    first = bytes([opcode | (0x80 if final else 0)])
    if len(payload) < 126:
        return first + bytes([len(payload)]) + payload
    if len(payload) < 65536:
        return first + b"\x7e" + len(payload).to_bytes(2, "big") + payload
    return first + b"\x7f" + len(payload).to_bytes(8, "big") + payload


def fragments(payload: bytes) -> bytes:
    """A message with one frame per byte."""
    last = len(payload) - 1
    return b"".join(frame(payload[i : i + 1], TEXT if i == 0 else 0, final=i == last) for i in range(len(payload)))


def mark_of(payload: bytes) -> bytes:
    """The mark in a publication, with its time."""
    at = payload.index(MARK[:1])
    return payload[at : at + len(MARK)]


class FakeConnection:
    """The server side of one connection. Reading raises EOFError when the load program has closed the connection."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self._file = stream.makefile("rb")
        self.request: bytes = b""

    def close(self) -> None:
        self._file.close()
        self.stream.close()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def read_request(self) -> bytes:
        """The head of an HTTP request."""
        lines = [self._file.readline()]
        while lines[-1] not in (b"\r\n", b""):
            lines.append(self._file.readline())
        if lines[-1] == b"":
            raise EOFError
        return b"".join(lines)

    def accept(self) -> None:
        self.request = self.read_request()
        self.send(SWITCHING)

    def read_frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame. Asserts that it is final and masked, as required of clients."""
        first, second = self.read(2)
        assert first & 0x80
        assert second & 0x80
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(self.read(2 if length == 126 else 8), "big")
        key = self.read(4)
        payload = self.read(length)
        return first & 0x0F, bytes(byte ^ key[i % 4] for i, byte in enumerate(payload)) if any(key) else payload

    def read_message(self) -> bytes:
        return self.read_frame()[1]

    def send(self, data: bytes) -> None:
        self.stream.sendall(data)

    def send_bytes_one_by_one(self, data: bytes) -> None:
        for i in range(len(data)):
            self.send(data[i : i + 1])

    def read_to_end(self) -> list[bytes]:
        """All messages until the load program closes the connection."""
        messages = []
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                messages.append(self.read_message())
        return messages


@contextmanager
def serve(handle: Callable[[FakeConnection], None]) -> Iterator[int]:
    """A server on a free port of 127.0.0.1. Each connection is handled in a thread; the exit waits for all threads."""
    threads: list[threading.Thread] = []

    def run(stream: socket.socket) -> None:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = FakeConnection(stream)
        try:
            handle(connection)
        except (EOFError, ConnectionError):
            pass  # the load program has closed the connection, as it does at its end
        finally:
            connection.close()

    def listen() -> None:
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=run, args=(stream,)))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        accepting = threading.Thread(target=listen)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept(), which close() does not
            accepting.join()
            for thread in threads:
                thread.join()
