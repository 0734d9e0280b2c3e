"""The short way in, for connections that are WebSockets from their first byte on, as nearly all of them are.

An HTTP server prepares for much: many requests, bodies, answers in pieces. Somebody who connects needs none of it, and
it would be a fifth of what a connect costs. So the first bytes of a connection are looked at before there is an HTTP
server for it: an upgrade request that is there as a whole goes straight to the acceptor, which judges it as any other.
Whatever else it is, in pieces, out of order, too large or no upgrade at all, the HTTP server gets it as it came. The
parser is the same in both cases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from beaconfire.base.timers import Timer, Timers
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.transports.options import ServerOptions
from beaconfire.transports.websocket.acceptor import WebSocketAcceptor
from beaconfire.transports.websocket.handshake import read_upgrade


class UpgradeDetector:
    """Makes the protocols of new connections; `protocol` is what uvicorn gets as its `http=`.

    `http` makes the HTTP server of a connection from uvicorn's arguments and `head_due_s`, the time until which its
    first request must be there. Until the first bytes come, `server.handshake_timeout` and uvicorn's shutdown end the
    connection just as they would with it.
    """

    def __init__(
        self,
        acceptor: WebSocketAcceptor,
        http: Callable[..., asyncio.Protocol],
        options: ServerOptions,
        timers: Timers,
        events: EventSink,
    ) -> None:
        self.acceptor = acceptor
        self.http = http
        self.head_timeout_s = float(options.handshake_timeout)
        self.head_max_size = int(options.header_max_size)
        self.timers = timers
        self.events = events

    def protocol(self, **uvicorn: Any) -> UpgradeDetectorProtocol:
        return UpgradeDetectorProtocol(self, uvicorn)


class UpgradeDetectorProtocol(asyncio.Protocol):
    """A connection that has not said anything yet."""

    __slots__ = ("_deadline", "_shortcut", "_stream", "_uvicorn")

    def __init__(self, shortcut: UpgradeDetector, uvicorn: dict[str, Any]) -> None:
        self._shortcut = shortcut
        self._uvicorn = uvicorn
        self._stream: asyncio.Transport | None = None
        self._deadline: Timer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream = cast(asyncio.Transport, transport)  # uvloop's own classes do not derive from it
        self._uvicorn["server_state"].connections.add(self)
        self._deadline = self._shortcut.timers.after(self._shortcut.head_timeout_s, self._give_up)

    def data_received(self, data: bytes) -> None:
        stream, shortcut = self._stream, self._shortcut
        if stream is None or stream.is_closing():
            return
        head_due_s = self._let_go()
        upgrade = read_upgrade(data, shortcut.head_max_size) if data.startswith(b"GET ") else None
        if upgrade is None or upgrade[0].headers.get("upgrade", "").lower() != "websocket":
            server = shortcut.http(head_due_s=head_due_s, **self._uvicorn)
            server.connection_made(stream)
            stream.set_protocol(server)
            server.data_received(data)
            return
        request, length = upgrade
        connection = shortcut.acceptor.accept(stream, request)
        if connection is None:
            return
        if rest := data[length:]:
            connection.read_frames(rest)
        else:
            stream.set_protocol(connection.single_frame_reader())

    def connection_lost(self, error: Exception | None) -> None:
        self._let_go()

    def shutdown(self) -> None:
        """uvicorn's request to come to an end."""
        if self._stream is not None:
            self._stream.close()

    def _let_go(self) -> float:
        """Nobody waits for first bytes any more. Returns the time until which one would have."""
        assert self._deadline is not None, "there was no connection"
        self._uvicorn["server_state"].connections.discard(self)
        self._deadline.cancel()
        self._stream = None
        return self._deadline.when_s

    def _give_up(self) -> None:
        self._shortcut.events.emit(LimitHit("server.handshake_timeout", ""))
        self.shutdown()
