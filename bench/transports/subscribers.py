"""Subscribers on bare sockets, so that all bytes are counted, including HTTP headers and frame headers."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import time
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlencode

from beaconfire.auth.issue import connection_token
from bench.peers.centrifuge import SECRET, TOKEN_LIFETIME_S

READ_BYTES = 64 * 1024
_TIME = re.compile(rb'"at_ns":(\d+)')


class Subscriber(Protocol):
    """One client in one channel. `delays_s` are those of the received messages, in order. `bytes` is the sum of both
    directions."""

    bytes: int
    delays_s: list[float]

    async def run(self, ready: Callable[[], None]) -> None:
        """Runs until cancelled. Calls `ready` when the client is subscribed."""


class _CountingConnection:
    """A connection that counts its bytes and finds the times in received messages."""

    def __init__(self, port: int, user: str, channel: str) -> None:
        self._port = port
        self._channel = channel
        self._token = connection_token(SECRET, user, now_unix_s=time.time(), expires_in_s=TOKEN_LIFETIME_S)
        self.bytes = 0
        self.delays_s: list[float] = []

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    def _connect_request(self, **more: Any) -> str:
        return json.dumps({"token": self._token, "subs": {self._channel: {}}, **more}, separators=(",", ":"))

    def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self.bytes += len(data)
        writer.write(data)

    def _record_delays(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        self.delays_s += [(now_ns - int(at_ns)) / 1e9 for at_ns in _TIME.findall(data)]


class StreamSubscriber(_CountingConnection):
    """A request with an endless response."""

    def __init__(self, port: int, user: str, channel: str, method: str, path: str, *headers: str) -> None:
        super().__init__(port, user, channel)
        self._method = method
        self._path = path
        self._headers = headers

    async def run(self, ready: Callable[[], None]) -> None:
        reader, writer = await self._open()
        try:
            request = self._connect_request()
            target, body = self._path, b""
            if self._method == "GET":
                target += "?" + urlencode({"cf_connect": request})
            else:
                body = request.encode()
            self._write(writer, _head(self._method, target, body, *self._headers))
            rest = b""
            while data := await reader.read(READ_BYTES):
                self.bytes += len(data)
                if b'"connect":' in data:
                    ready()
                *whole, rest = (rest + data).split(b"}")
                self._record_delays(b"}".join(whole) + b"}")
        finally:
            writer.close()


class PollingSubscriber(_CountingConnection):
    """One request after the other. Without an interval, the server responds when there is a message (long polling)."""

    def __init__(self, port: int, user: str, channel: str, interval_s: float = 0.0) -> None:
        super().__init__(port, user, channel)
        self._interval_s = interval_s
        self._subs: dict[str, Any] = {channel: {}}

    async def run(self, ready: Callable[[], None]) -> None:
        reader, writer = await self._open()
        try:
            while True:
                await self._poll(reader, writer)
                ready()
                if self._interval_s:
                    await asyncio.sleep(self._interval_s)
        finally:
            writer.close()

    async def _poll(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wait = {"wait": 0} if self._interval_s else {}
        body = self._connect_request(subs=self._subs, **wait).encode()
        self._write(writer, _head("POST", "/connection/poll", body))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the server refused a poll: {head!r}")
        length = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
        answer = await reader.readexactly(length)
        self.bytes += len(head) + length
        self._record_delays(answer)
        self._subs = json.loads(answer)["subs"]


def _head(method: str, target: str, body: bytes, *headers: str) -> bytes:
    """A request with only the necessary headers."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def websocket(port: int, user: str, channel: str) -> Subscriber:
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}")
    return StreamSubscriber(port, user, channel, "GET", "/connection/uni_websocket", *upgrade)


def http_stream(port: int, user: str, channel: str) -> Subscriber:
    return StreamSubscriber(port, user, channel, "POST", "/connection/uni_http_stream")


def sse(port: int, user: str, channel: str) -> Subscriber:
    return StreamSubscriber(port, user, channel, "GET", "/connection/uni_sse")


def long_polling(port: int, user: str, channel: str) -> Subscriber:
    return PollingSubscriber(port, user, channel)


def polling(port: int, user: str, channel: str) -> Subscriber:
    return PollingSubscriber(port, user, channel, interval_s=1.0)


SUBSCRIBERS: dict[str, Callable[[int, str, str], Subscriber]] = {
    "WebSocket": websocket,
    "HTTP streaming": http_stream,
    "Server-Sent Events": sse,
    "Long polling": long_polling,
    "Polling, every second": polling,
}
"""By the name on the page. Each function makes a subscriber from port, user and channel."""
