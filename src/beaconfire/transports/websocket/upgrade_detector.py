"""The fast path for connections that begin with a WebSocket upgrade, as nearly all connections do.

An HTTP server is prepared for many requests, bodies and partial responses. A WebSocket client needs none of it, and it
would be a fifth of the cost of a connect. So the first read of a connection is examined before an HTTP server is made
for it. A whole upgrade request goes straight to the acceptor, which makes the same checks as for any other upgrade. In
every other case (an incomplete, too large or malformed request, or no upgrade) the HTTP server gets the same bytes.
Both use the same parser, httptools.

When thousands of clients return at once, their requests arrive in one turn of the event loop, which would take some
tenths of a second. They are answered in slices, so that the clients that are connected already need not wait. A client
sends more only after the answer to its upgrade, so this paces all that a new client does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from beaconfire.base.loop import PacedCalls, Schedule
from beaconfire.base.timers import Timer, Timers
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.transports.options import ServerOptions
from beaconfire.transports.websocket.acceptor import WebSocketAcceptor
from beaconfire.transports.websocket.handshake import read_upgrade


class UpgradeDetector:
    """Makes the protocols of new connections. uvicorn gets `protocol` as its `http=`.

    `http` makes the HTTP server of one connection, from uvicorn's arguments and `head_deadline_s`: the time by which
    the first request head must be complete. Before the first read, `server.handshake_timeout` and uvicorn's shutdown
    close a connection as the HTTP server would.
    """

    def __init__(
        self,
        acceptor: WebSocketAcceptor,
        http: Callable[..., asyncio.Protocol],
        options: ServerOptions,
        timers: Timers,
        events: EventSink,
        schedule: Schedule,
    ) -> None:
        self.acceptor = acceptor
        self.http = http
        self.head_timeout_s = float(options.handshake_timeout)
        self.head_max_size = int(options.header_max_size)
        self.timers = timers
        self.events = events
        self.reads = PacedCalls(schedule, timers.clock.now_s)

    def protocol(self, **uvicorn: Any) -> UpgradeDetectorProtocol:
        return UpgradeDetectorProtocol(self, uvicorn)


class UpgradeDetectorProtocol(asyncio.Protocol):
    """The asyncio protocol of a connection until its first read."""

    __slots__ = ("_deadline", "_detector", "_stream", "_uvicorn", "_waiting")

    def __init__(self, detector: UpgradeDetector, uvicorn: dict[str, Any]) -> None:
        self._detector = detector
        self._uvicorn = uvicorn
        self._stream: asyncio.Transport | None = None
        self._deadline: Timer | None = None
        self._waiting = b""
        """What was received and must wait for the next slice."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream = cast(asyncio.Transport, transport)  # uvloop's own classes do not derive from it
        self._uvicorn["server_state"].connections.add(self)
        self._deadline = self._detector.timers.after(self._detector.head_timeout_s, self._on_timeout)

    def data_received(self, data: bytes) -> None:
        stream, reads = self._stream, self._detector.reads
        if stream is None or stream.is_closing():
            return
        if self._waiting:
            self._waiting += data
            if len(self._waiting) > self._detector.head_max_size:
                stream.pause_reading()  # the peer does not wait for an answer
        elif reads.is_over():
            self._waiting = data  # and reading goes on: the loss of the connection must be seen
            reads.call(self._read_waiting)
        else:
            self._read(stream, data)

    def _read_waiting(self) -> None:
        stream = self._stream
        if stream is not None and not stream.is_closing():
            if len(self._waiting) > self._detector.head_max_size:
                stream.resume_reading()
            self._read(stream, self._waiting)

    def _read(self, stream: asyncio.Transport, data: bytes) -> None:
        detector = self._detector
        head_deadline_s = self._release()
        upgrade = read_upgrade(data, detector.head_max_size) if data.startswith(b"GET ") else None
        if upgrade is None or upgrade[0].headers.get("upgrade", "").lower() != "websocket":
            server = detector.http(head_deadline_s=head_deadline_s, **self._uvicorn)
            server.connection_made(stream)
            stream.set_protocol(server)
            server.data_received(data)
            return
        request, length = upgrade
        connection = detector.acceptor.accept(stream, request)
        if connection is None:
            return
        if rest := data[length:]:
            connection.read_frames(rest)
        else:
            stream.set_protocol(connection.single_frame_reader())

    def connection_lost(self, error: Exception | None) -> None:
        self._release()

    def shutdown(self) -> None:
        """uvicorn calls this to close the connection."""
        if self._stream is not None:
            self._stream.close()

    def _release(self) -> float:
        """Stops waiting for the first read. Returns the deadline of that wait."""
        assert self._deadline is not None, "there was no connection"
        self._uvicorn["server_state"].connections.discard(self)
        self._deadline.cancel()
        self._stream = None
        return self._deadline.when_s

    def _on_timeout(self) -> None:
        self._detector.events.emit(LimitHit("server.handshake_timeout", ""))
        self.shutdown()
