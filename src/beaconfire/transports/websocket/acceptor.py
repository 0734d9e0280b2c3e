"""Accepts WebSockets: checks an upgrade request, sends the response, and makes the connection with its session."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping, Sequence
from typing import cast

from beaconfire.base.loop import PacedCalls, Schedule
from beaconfire.base.timers import Timer, Timers
from beaconfire.model.events import (
    EventSink,
    HandshakeRefused,
    InternalError,
    LimitHit,
)
from beaconfire.model.handshake import Handshake
from beaconfire.transports.client_address import ClientAddresses
from beaconfire.transports.options import WebSocketOptions
from beaconfire.transports.origins import OriginRules
from beaconfire.transports.port import Admit, ErrorResponse
from beaconfire.transports.reset import abandon_after, reset
from beaconfire.transports.websocket.connection import WebSocketConnection
from beaconfire.transports.websocket.frame_reader import FrameReader, feed
from beaconfire.transports.websocket.handshake import (
    HandshakeError,
    UpgradeRequest,
    accept_key,
    accept_response,
    check_http,
    encode_error_response,
    read_upgrade,
)
from beaconfire.transports.websocket.picows_log import PicowsLog
from beaconfire.transports.websocket.sender import ConnectionContext
from beaconfire.transports.websocket_endpoints import (
    FOREIGN_ORIGIN,
    INTERNAL,
    NOT_FOUND,
    OTHER_PATH,
    Endpoint,
    NegotiatedHandshake,
)


class WebSocketAcceptor:
    """Makes WebSocket connections from upgrade requests. uvicorn gets `upgrade` as its `ws=`.

    A request is checked in this order: HTTP version and Host, path, handshake, origin, `admit`, endpoint. A refused
    request gets a plain HTTP response and is reported as `HandshakeRefused`. `timers.run_due` must be called regularly.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        options: WebSocketOptions,
        origins: Sequence[str],
        admit: Admit,
        timers: Timers,
        events: EventSink,
        schedule: Schedule,
        trusted_proxies: Sequence[str] = (),
    ) -> None:
        """The addresses of clients are taken from the forwarding headers of `trusted_proxies`."""
        self._endpoints = dict(endpoints)
        self._origins = OriginRules(origins)
        self._admit = admit
        self._events = events
        self._addresses = ClientAddresses(trusted_proxies)
        self._context = ConnectionContext(
            message_size_limit=options.message_size_limit,
            write_timeout_s=options.write_timeout,
            close_timeout_s=options.close_timeout,
            timers=timers,
            events=events,
            endings=PacedCalls(schedule, timers.clock.now_s),
            log=PicowsLog(events),
        )

    def upgrade(self, **_uvicorn: object) -> HandshakeProtocol:
        """The protocol for one connection with an upgrade request. It needs none of uvicorn's arguments."""
        return HandshakeProtocol(self)

    def accept(self, stream: asyncio.Transport, request: UpgradeRequest) -> WebSocketConnection | None:
        """Responds to the request. Returns None for a refused request; its connection is then closing.

        The caller must install a reader of the connection as the protocol of `stream`.
        """
        try:
            key, negotiated = self._negotiate(request)
        except HandshakeError as error:
            response = error.response
            path = request.path if request.path in self._endpoints else OTHER_PATH
            self._events.emit(HandshakeRefused(path, response.status, response.reason))
            stream.write(encode_error_response(response))
            stream.close()
            return None
        connection = WebSocketConnection(self._context, stream, inflates=bool(negotiated.extension))
        accepted = accept_response(key, negotiated.subprotocol, negotiated.extension)
        connection.begin(accepted, negotiated.open_session, self._handshake(stream, request))
        return connection

    def _handshake(self, stream: asyncio.Transport, request: UpgradeRequest) -> Handshake:
        forwarded_for = request.headers.get("x-forwarded-for")
        fields = [(b"x-forwarded-for", forwarded_for.encode("latin-1"))] if forwarded_for is not None else []
        address = self._addresses.find(stream.get_extra_info("peername"), fields)
        return Handshake(WebSocketConnection.name, request.path, request.query, request.headers, address)

    def start_close_timer(self, stream: asyncio.Transport) -> Timer:
        """Resets a closing connection after `websocket.close_timeout`, if the peer has not read the rest by then.

        The caller must cancel the timer when the connection is lost.
        """
        timeout_s = self._context.close_timeout_s
        abandon_after(stream, timeout_s)
        return self._context.timers.after(timeout_s, lambda: self._on_close_timeout(stream))

    def _on_close_timeout(self, stream: asyncio.Transport) -> None:
        self.count_close_timeout()
        reset(stream)

    def count_close_timeout(self) -> None:
        """Counts a closing connection that is reset because its peer has not read the rest in time."""
        self._events.emit(LimitHit("websocket.close_timeout", ""))

    def reset_unread(self) -> None:
        """Resets the closing connections whose peers have not taken all that was written."""
        for connection in list(self._context.closing):
            connection.reset_unread()

    def _negotiate(self, request: UpgradeRequest) -> tuple[str, NegotiatedHandshake]:
        endpoint = self._endpoints.get(request.path)
        if endpoint is None:
            check_http(request)
            raise HandshakeError(NOT_FOUND)
        key = accept_key(request)
        if not self._origins.allow(request.origin):
            raise HandshakeError(FOREIGN_ORIGIN)
        try:
            result = self._admit() or endpoint.negotiate(request)
        except Exception:  # noqa: BLE001 - a bug in an endpoint must not leave the client without a response
            self._events.emit(InternalError("websocket handshake", traceback.format_exc()))
            raise HandshakeError(INTERNAL) from None
        if isinstance(result, ErrorResponse):
            raise HandshakeError(result)
        return key, result


class HandshakeProtocol(asyncio.Protocol):
    """The protocol to which the HTTP server passes a connection. After the handshake a frame reader replaces it."""

    __slots__ = ("_acceptor", "_close_timer", "_reader", "_stream")

    def __init__(self, acceptor: WebSocketAcceptor) -> None:
        self._acceptor = acceptor
        self._stream: asyncio.Transport | None = None
        self._reader: FrameReader | None = None
        self._close_timer: Timer | None = None
        """Set for a refused request: the peer may not have read earlier responses on the connection, nor this one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream = cast(asyncio.Transport, transport)  # uvloop's own classes do not derive from it

    def data_received(self, data: bytes) -> None:
        """Receives the whole request head first, then bytes that were read before the frame reader was installed."""
        stream = self._stream
        assert stream is not None, "data before the connection"
        if self._reader is not None:
            feed(self._reader, data)
        elif not stream.is_closing():
            upgrade = read_upgrade(data, len(data))
            assert upgrade is not None, "the HTTP server passes on upgrade requests only"
            connection = self._acceptor.accept(stream, upgrade[0])
            if connection is None:
                self._close_timer = self._acceptor.start_close_timer(stream)
            else:
                self._reader = connection.new_reader()
                # Not now: uvicorn makes this object the connection's protocol right after this call.
                asyncio.get_running_loop().call_soon(stream.set_protocol, self._reader)

    def pause_writing(self) -> None:
        if self._reader is not None:
            self._reader.pause_writing()

    def resume_writing(self) -> None:
        if self._reader is not None:
            self._reader.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        if self._close_timer is not None:
            self._close_timer.cancel()
            if isinstance(error, TimeoutError):  # the kernel's timer, which starts at the peer's last read, was first
                self._acceptor.count_close_timeout()
        if self._reader is not None:
            self._reader.connection_lost(error)
