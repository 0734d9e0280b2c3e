"""The subscribers, in a separate process: `python -m bench.deflate.subscribers PORT COUNT DISTRIBUTION OFFER`.

They are bare sockets that read only frame headers: compressed frames are counted, not decompressed. The program prints
`ready` when all are subscribed. Whenever each has received one more message, it prints a line: the bytes and the number
of compressed frames of all subscribers so far.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import sys
from collections.abc import Iterator

from bench.peers.centrifuge import PROTOCOLS
from bench.processes import allow_many_files

READ_BYTES = 64 * 1024
CHANNELS = {"one room": "news", "a room each": "news{number}"}
"""The channel of a subscriber, by distribution of subscribers among channels."""


def channel(distribution: str, number: int) -> str:
    return CHANNELS[distribution].format(number=number)


class CountingSubscriber:
    """A subscribed connection that counts what it receives. Bytes include frame headers."""

    def __init__(self, port: int, name: str, offer: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.bytes = self.messages = self.compressed = 0
        self._rest = b""
        self._upgrade(offer)
        for message in PROTOCOLS["json"].setup_messages(f"user of {name}", [name]):
            self.socket.sendall(_frame(message))
            while not self.messages:
                self.receive()
            self.bytes = self.messages = self.compressed = 0

    def _upgrade(self, offer: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        extensions = f"Sec-WebSocket-Extensions: {offer}\r\n" if offer else ""
        self.socket.sendall(
            f"GET {PROTOCOLS['json'].path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{extensions}\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(READ_BYTES)
        if not head.startswith(b"HTTP/1.1 101"):
            raise RuntimeError(f"refused: {head!r}")

    def receive(self) -> None:
        """Waits for data and counts it. Raises RuntimeError if the server has closed the connection."""
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise RuntimeError("the server has closed a connection")
        self._rest += data
        for first, length in self._frames():
            if first & 0xF in (1, 2):
                self.messages += 1
                self.bytes += length
                self.compressed += first >> 6 & 1

    def _frames(self) -> Iterator[tuple[int, int]]:
        """The first byte and the total length of each complete frame."""
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
    port, count, distribution, offer = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    allow_many_files()
    poll = select.epoll()
    subscribers: dict[int, CountingSubscriber] = {}
    for number in range(count):
        subscriber = CountingSubscriber(port, channel(distribution, number), offer)
        subscribers[subscriber.socket.fileno()] = subscriber
        poll.register(subscriber.socket, select.EPOLLIN)
    print("ready", flush=True)
    expected = count
    while True:
        for descriptor, _ in poll.poll():
            subscribers[descriptor].receive()
        if sum(subscriber.messages for subscriber in subscribers.values()) == expected:
            expected += count
            size = sum(subscriber.bytes for subscriber in subscribers.values())
            print(size, sum(subscriber.compressed for subscriber in subscribers.values()), flush=True)


if __name__ == "__main__":
    main()
