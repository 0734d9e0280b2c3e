"""The listeners, as a process of their own: `python -m bench.deflate.listening PORT COUNT AUDIENCE OFFER`.

They are bare sockets, and look at nothing but the heads of frames: what is compressed is counted, not inflated. Says
`ready` once all have subscribed, then a line whenever each has got one more message: the bytes and the compressed
frames of all of them so far.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import sys
from collections.abc import Iterator

from bench.peers.centrifuge import DIALECTS
from bench.processes import allow_many_files

READ_BYTES = 64 * 1024
CHANNELS = {"one room": "news", "a room each": "news{number}"}
"""The channel of a listener, by audience."""


def channel(audience: str, number: int) -> str:
    return CHANNELS[audience].format(number=number)


class Listener:
    """A connection that has subscribed, and counts what it gets. Bytes are of whole frames."""

    def __init__(self, port: int, name: str, offer: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.bytes = self.messages = self.compressed = 0
        self._rest = b""
        self._upgrade(offer)
        for greeting in DIALECTS["json"].greetings(f"user of {name}", [name]):
            self.socket.sendall(_frame(greeting))
            while not self.messages:
                self.receive()
            self.bytes = self.messages = self.compressed = 0

    def _upgrade(self, offer: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        extensions = f"Sec-WebSocket-Extensions: {offer}\r\n" if offer else ""
        self.socket.sendall(
            f"GET {DIALECTS['json'].path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{extensions}\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(READ_BYTES)
        if not head.startswith(b"HTTP/1.1 101"):
            raise RuntimeError(f"refused: {head!r}")

    def receive(self) -> None:
        """What there is, after waiting for something. Raises RuntimeError at the end of the connection."""
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise RuntimeError("the server has ended a connection")
        self._rest += data
        for first, length in self._frames():
            if first & 0xF in (1, 2):
                self.messages += 1
                self.bytes += length
                self.compressed += first >> 6 & 1

    def _frames(self) -> Iterator[tuple[int, int]]:
        """The first byte and the whole length of each frame that is there."""
        while len(self._rest) >= 2:
            length, start = self._rest[1], 2
            if length > 125:
                start = 4 if length == 126 else 10
                length = int.from_bytes(self._rest[2:start], "big")
            if len(self._rest) < start + length:
                return
            first, self._rest = self._rest[0], self._rest[start + length :]
            yield first, start + length


def _frame(payload: bytes) -> bytes:
    """A text frame with a mask of zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + payload


def main() -> None:
    port, count, audience, offer = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    allow_many_files()
    poll = select.epoll()
    listeners: dict[int, Listener] = {}
    for number in range(count):
        listener = Listener(port, channel(audience, number), offer)
        listeners[listener.socket.fileno()] = listener
        poll.register(listener.socket, select.EPOLLIN)
    print("ready", flush=True)
    expected = count
    while True:
        for descriptor, _ in poll.poll():
            listeners[descriptor].receive()
        if sum(listener.messages for listener in listeners.values()) == expected:
            expected += count
            size = sum(listener.bytes for listener in listeners.values())
            print(size, sum(listener.compressed for listener in listeners.values()), flush=True)


if __name__ == "__main__":
    main()
