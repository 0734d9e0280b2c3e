"""A client that returns after every loss as the browser client does: with tickets, from its position, and after random
times."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any, Final

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from tests.acceptance.deadlines import DEADLINE_S, wait_until

RETRY_FIRST_S: Final = 0.5
"""The bound of the first random delay, which each failure doubles, as in the browser client."""

_decode: Final = msgspec.json.Decoder().decode_lines
_encode: Final = msgspec.json.encode


class ReturningClient(WSListener):
    """Subscribes to one channel. `is_back` is true from the reply to subscribe until the connection ends.

    While `is_away`, until the connection ends, the client ignores messages, as if its network had failed.
    """

    def __init__(self, port: int, user: str, channel: str, token: str, channel_token: str) -> None:
        self.user, self.channel = user, channel
        self.is_away = False
        self.is_back = False
        self.refused = ""
        """The error that has ended all attempts."""
        self.offset = 0
        self.problems: list[str] = []
        self._url = f"ws://127.0.0.1:{port}/connection/websocket"
        self._epoch = ""
        self._credentials: dict[str, Any] = {"token": token}
        self._channel_credentials: dict[str, Any] = {"token": channel_token}
        self._has_tickets = False
        self._transport: WSTransport | None = None
        self._failures = 0
        self._stopped = False
        self.failed_attempts = Counter[str]()
        """By the type of the error."""

    async def start(self) -> None:
        """Returns when the client is back, or refused."""
        self._ready = asyncio.get_running_loop().create_future()
        self._attempt()
        async with asyncio.timeout(DEADLINE_S):
            await self._ready

    def try_again(self) -> None:
        """Returns although it was refused."""
        self.refused = ""
        self._attempt()

    async def stop(self) -> None:
        """The client does not return any more. No socket is left when this returns."""
        self._stopped = True
        self._attempting.cancel()
        await asyncio.wait([self._attempting])
        self.cut()
        await wait_until(lambda: not self.is_connected, "the connection has ended")

    @property
    def is_connected(self) -> bool:
        return self._transport is not None

    def cut(self) -> None:
        """Ends the connection without a close frame."""
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    def _attempt(self) -> None:
        if not self._stopped and not self.refused:
            self._attempting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        try:
            await ws_connect(lambda: self, self._url)
        except Exception as error:  # noqa: BLE001 - each is a failed attempt
            self.failed_attempts[type(error).__name__] += 1
            self._retry()

    def _retry(self) -> None:
        if not self._stopped and not self.refused:
            delay_s = random.uniform(0, RETRY_FIRST_S * 2**self._failures)
            self._failures += 1
            asyncio.get_running_loop().call_later(delay_s, self._attempt)

    # From the server

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._send({"id": 1, "connect": {"want_tickets": True, **self._credentials}})

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transport, self.is_back, self.is_away = None, False, False
        self._retry()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.CLOSE:
            code = int.from_bytes(frame.get_payload_as_bytes()[:2], "big")
            if 3500 <= code < 4000:  # the browser client does not return then
                self._end(str(code))
            self.cut()
        elif frame.msg_type is WSMsgType.TEXT and not self.is_away:
            for message in _decode(frame.get_payload_as_bytes()):
                self._receive(message)

    def _receive(self, message: dict[str, Any]) -> None:
        if not message:
            self._send({})
        elif "error" in message:
            self._end(str(message["error"]))
        elif "connect" in message:
            self._connected(message["connect"])
        elif "subscribe" in message:
            self._subscribed(message["subscribe"])
        elif pub := message.get("push", {}).get("pub"):
            self._count(pub["offset"])

    def _connected(self, result: dict[str, Any]) -> None:
        if ticket := result.get("ticket"):
            self._credentials = {"ticket": ticket}  # without the token, so that nothing but the ticket can help
        position = {"recover": True, "epoch": self._epoch, "offset": self.offset} if self._epoch else {}
        request = {"channel": self.channel, "recoverable": True, **position, **self._channel_credentials}
        self._send({"id": 2, "subscribe": request})

    def _subscribed(self, result: dict[str, Any]) -> None:
        if ticket := result.get("ticket"):
            self._channel_credentials = {"ticket": ticket}
        if result.get("was_recovering") and not result.get("recovered"):
            self.problems.append("not recovered")
        if not self._epoch:
            self._epoch, self.offset = result["epoch"], result.get("offset", 0)
        for publication in result.get("publications", ()):
            self._count(publication["offset"])
        self.is_back, self._failures = True, 0
        self._finish()

    def _count(self, offset: int) -> None:
        if offset != self.offset + 1:
            self.problems.append(f"{offset} after {self.offset}")
        self.offset = offset

    def _end(self, error: str) -> None:
        self.refused = error
        self.cut()
        self._finish()

    def _finish(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _send(self, message: dict[str, Any]) -> None:
        if self._transport is not None:
            self._transport.send(WSMsgType.TEXT, _encode(message))
