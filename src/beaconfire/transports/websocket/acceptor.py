"""Where WebSockets come from: an upgrade request is judged, answered, and becomes a connection with its session."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping, Sequence
from typing import cast

from beaconfire.base.timers import Timer, Timers
from beaconfire.model.events import (
    EventSink,
    HandshakeRefused,
    InternalError,
    LimitHit,
)
from beaconfire.transports.options import WebSocketOptions
from beaconfire.transports.origins import OriginRules
from beaconfire.transports.port import Admit, ErrorResponse
from beaconfire.transports.reset import abandon_after, reset
from beaconfire.transports.websocket.connection import WebSocketConnection
from beaconfire.transports.websocket.frame_reader import FrameReader, feed
from beaconfire.transports.websocket.handshake import (
    Endpoint,
    HandshakeError,
    NegotiatedHandshake,
    UpgradeRequest,
    accept_key,
    accept_response,
    check_http,
    read_upgrade,
    refusal_response,
)
from beaconfire.transports.websocket.picows_log import PicowsLog
from beaconfire.transports.websocket.sender import ConnectionContext

_NOT_FOUND = ErrorResponse(404, "bad", "no WebSocket endpoint here")
_FOREIGN_ORIGIN = ErrorResponse(403, "origin", "this origin may not connect")
_INTERNAL = ErrorResponse(500, "bad", "internal server error")

_OTHER_PATH = "other"
"""What a `HandshakeRefused` says instead of a path that is no endpoint's."""


class WebSocketAcceptor:
    """Makes WebSocket connections of upgrade requests. `upgrade` is what uvicorn gets as its `ws=`.

    A request is judged in this order: HTTP version and Host, path, handshake, origin, `admit`, then the endpoint; what
    is refused gets a plain HTTP response and is reported as `HandshakeRefused`. Somebody must call `timers.run_due`
    now and then.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        options: WebSocketOptions,
        origins: Sequence[str],
        admit: Admit,
        timers: Timers,
        events: EventSink,
    ) -> None:
        self._endpoints = dict(endpoints)
        self._origins = OriginRules(origins)
        self._admit = admit
        self._events = events
        self._rules = ConnectionContext(
            message_size_limit=options.message_size_limit,
            write_timeout_s=options.write_timeout,
            close_timeout_s=options.close_timeout,
            timers=timers,
            events=events,
            log=PicowsLog(events),
        )

    def upgrade(self, **_uvicorn: object) -> Handshake:
        """The protocol for one connection that asks for an upgrade; uvicorn's own arguments are of no use to it."""
        return Handshake(self)

    def accept(self, stream: asyncio.Transport, request: UpgradeRequest) -> WebSocketConnection | None:
        """Answers the request; None if it was refused, and then the connection is closing.

        The caller sees to it that what comes from `stream` reaches a reader of the connection.
        """
        try:
            key, choice = self._judge(request)
        except HandshakeError as error:
            refusal = error.refusal
            path = request.path if request.path in self._endpoints else _OTHER_PATH
            self._events.emit(HandshakeRefused(path, refusal.status, refusal.reason))
            stream.write(refusal_response(refusal))
            stream.close()
            return None
        connection = WebSocketConnection(self._rules, stream, inflates=bool(choice.extension))
        connection.begin(accept_response(key, choice.subprotocol, choice.extension), choice.open_session)
        return connection

    def cut_later(self, stream: asyncio.Transport) -> Timer:
        """Gives the peer of a closing connection `websocket.close_timeout` to read the rest. The connection's end must
        cancel the timer.
        """
        timeout_s = self._rules.close_timeout_s
        abandon_after(stream, timeout_s)
        return self._rules.timers.after(timeout_s, lambda: self._cut(stream))

    def _cut(self, stream: asyncio.Transport) -> None:
        self.count_overdue()
        reset(stream)

    def count_overdue(self) -> None:
        """A closing connection is cut because its peer has not read the rest in time."""
        self._events.emit(LimitHit("websocket.close_timeout", ""))

    def reset_unread(self) -> None:
        """Resets those connections that are being closed and whose peers have not taken all that was written."""
        for connection in list(self._rules.closing):
            connection.reset_unread()

    def _judge(self, request: UpgradeRequest) -> tuple[str, NegotiatedHandshake]:
        endpoint = self._endpoints.get(request.path)
        if endpoint is None:
            check_http(request)
            raise HandshakeError(_NOT_FOUND)
        key = accept_key(request)
        if not self._origins.allow(request.origin):
            raise HandshakeError(_FOREIGN_ORIGIN)
        try:
            verdict = self._admit() or endpoint.negotiate(request)
        except Exception:  # noqa: BLE001 - a bug in the rules must not leave the client without an answer
            self._events.emit(InternalError("websocket handshake", traceback.format_exc()))
            raise HandshakeError(_INTERNAL) from None
        if isinstance(verdict, ErrorResponse):
            raise HandshakeError(verdict)
        return key, verdict


class Handshake(asyncio.Protocol):
    """What uvicorn hands the connection to; it gives way to the frame reader as soon as the request is accepted."""

    __slots__ = ("_acceptor", "_overdue", "_reader", "_stream")

    def __init__(self, acceptor: WebSocketAcceptor) -> None:
        self._acceptor = acceptor
        self._stream: asyncio.Transport | None = None
        self._reader: FrameReader | None = None
        self._overdue: Timer | None = None
        """Set for a refused request: earlier answers on the connection may be unread, and the refusal behind them."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream = cast(asyncio.Transport, transport)  # uvloop's own classes do not derive from it

    def data_received(self, data: bytes) -> None:
        """First the request head, whole; after that what the loop had read before it learned of the reader."""
        stream = self._stream
        assert stream is not None, "data before the connection"
        if self._reader is not None:
            feed(self._reader, data)
        elif not stream.is_closing():
            upgrade = read_upgrade(data, len(data))
            assert upgrade is not None, "the HTTP server passes on upgrade requests only"
            connection = self._acceptor.accept(stream, upgrade[0])
            if connection is None:
                self._overdue = self._acceptor.cut_later(stream)
            else:
                self._reader = connection.new_reader()
                # uvicorn makes this object the connection's protocol right after this call.
                asyncio.get_running_loop().call_soon(stream.set_protocol, self._reader)

    def pause_writing(self) -> None:
        if self._reader is not None:
            self._reader.pause_writing()

    def resume_writing(self) -> None:
        if self._reader is not None:
            self._reader.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            if isinstance(error, TimeoutError):  # the kernel was faster: its time runs since the peer read last
                self._acceptor.count_overdue()
        if self._reader is not None:
            self._reader.connection_lost(error)
