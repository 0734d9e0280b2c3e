"""Clients that listen, on bare sockets, so that every byte is counted: those of heads and frames too."""

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
_MARK = re.compile(rb'"at_ns":(\d+)')


class Listener(Protocol):
    """One client in one channel. `delays_s` of what it got are in order; `bytes` are those of both directions."""

    bytes: int
    delays_s: list[float]

    async def listen(self, ready: Callable[[], None]) -> None:
        """Until it is cancelled; calls `ready` once it can hear."""


class _Wire:
    """A connection that counts, and finds the marks in what comes."""

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

    def _look(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        self.delays_s += [(now_ns - int(at_ns)) / 1e9 for at_ns in _MARK.findall(data)]


class Stream(_Wire):
    """A request whose answer does not end."""

    def __init__(self, port: int, user: str, channel: str, method: str, path: str, *headers: str) -> None:
        super().__init__(port, user, channel)
        self._method = method
        self._path = path
        self._headers = headers

    async def listen(self, ready: Callable[[], None]) -> None:
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
                self._look(b"}".join(whole) + b"}")
        finally:
            writer.close()


class Polls(_Wire):
    """One request after the other; with an interval they do not wait for anything new, but for their turn."""

    def __init__(self, port: int, user: str, channel: str, interval_s: float = 0.0) -> None:
        super().__init__(port, user, channel)
        self._interval_s = interval_s
        self._subs: dict[str, Any] = {channel: {}}

    async def listen(self, ready: Callable[[], None]) -> None:
        reader, writer = await self._open()
        try:
            while True:
                await self._ask(reader, writer)
                ready()
                if self._interval_s:
                    await asyncio.sleep(self._interval_s)
        finally:
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wait = {"wait": 0} if self._interval_s else {}
        body = self._connect_request(subs=self._subs, **wait).encode()
        self._write(writer, _head("POST", "/connection/poll", body))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"a poll was refused: {head!r}")
        length = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
        answer = await reader.readexactly(length)
        self.bytes += len(head) + length
        self._look(answer)
        self._subs = json.loads(answer)["subs"]


def _head(method: str, target: str, body: bytes, *headers: str) -> bytes:
    """A request with nothing but what it needs."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def websocket(port: int, user: str, channel: str) -> Listener:
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}")
    return Stream(port, user, channel, "GET", "/connection/uni_websocket", *upgrade)


def http_stream(port: int, user: str, channel: str) -> Listener:
    return Stream(port, user, channel, "POST", "/connection/uni_http_stream")


def sse(port: int, user: str, channel: str) -> Listener:
    return Stream(port, user, channel, "GET", "/connection/uni_sse")


def long_polling(port: int, user: str, channel: str) -> Listener:
    return Polls(port, user, channel)


def polling(port: int, user: str, channel: str) -> Listener:
    return Polls(port, user, channel, interval_s=1.0)


LISTENERS: dict[str, Callable[[int, str, str], Listener]] = {
    "WebSocket": websocket,
    "HTTP streaming": http_stream,
    "Server-Sent Events": sse,
    "Long polling": long_polling,
    "Polling, every second": polling,
}
"""By the name of the page; each makes a listener from port, user and channel."""
