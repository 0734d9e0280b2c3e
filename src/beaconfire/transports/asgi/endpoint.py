"""The WebSocket endpoints as ASGI applications: they check a request, accept it, and run its connection."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Final

from starlette.types import Receive, Scope, Send

from beaconfire.base.timers import Timers
from beaconfire.model.events import EventSink, HandshakeRefused, InternalError
from beaconfire.transports.asgi.connection import AsgiWebSocket, ConnectionContext
from beaconfire.transports.asgi_scope import read_handshake
from beaconfire.transports.options import WebSocketOptions
from beaconfire.transports.origins import OriginRules
from beaconfire.transports.port import Admit, ErrorResponse
from beaconfire.transports.websocket_endpoints import (
    FOREIGN_ORIGIN,
    INTERNAL,
    Endpoint,
    NegotiatedHandshake,
)
from beaconfire.transports.websocket_request import WebSocketRequest

DENIAL_EXTENSION: Final = "websocket.http.response"
"""The ASGI extension with which an application refuses a WebSocket by any HTTP response. Without it, 403 is the only
response."""


class WebSocketChecks:
    """What all WebSocket endpoints share: the checks of requests, and the context of connections.

    The ASGI server has checked that a request is a valid handshake (RFC 6455 section 4.2.1). `timers.run_due` must be
    called regularly.
    """

    def __init__(
        self, options: WebSocketOptions, origins: Sequence[str], admit: Admit, timers: Timers, events: EventSink
    ) -> None:
        self._origins = OriginRules(origins)
        self._admit = admit
        self.events = events
        self.context = ConnectionContext(
            message_size_limit=int(options.message_size_limit),
            write_timeout_s=float(options.write_timeout),
            close_timeout_s=float(options.close_timeout),
            timers=timers,
            events=events,
        )

    def negotiate(self, endpoint: Endpoint, request: WebSocketRequest) -> NegotiatedHandshake | ErrorResponse:
        """Checks the origin, then admission, then asks the endpoint."""
        if not self._origins.allow(request.origin):
            return FOREIGN_ORIGIN
        try:
            return self._admit() or endpoint.negotiate(request)
        except Exception:  # noqa: BLE001 - a bug in an endpoint must not leave the client without a response
            self.events.emit(InternalError("websocket handshake", traceback.format_exc()))
            return INTERNAL


class WebSocketEndpoint:
    """The ASGI application of one path, for scopes of type `websocket`."""

    def __init__(self, path: str, endpoint: Endpoint, checks: WebSocketChecks) -> None:
        """`path` is the path in `HandshakeRefused`."""
        self._path = path
        self._endpoint = endpoint
        self._checks = checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            return  # the client has disconnected already
        handshake = read_handshake(scope, AsgiWebSocket.name)
        request = WebSocketRequest(handshake.path, handshake.query, handshake.headers)
        negotiated = self._checks.negotiate(self._endpoint, request)
        if isinstance(negotiated, ErrorResponse):
            self._checks.events.emit(HandshakeRefused(self._path, negotiated.status, negotiated.reason))
            await refuse_websocket(scope, send, negotiated)
            return
        try:
            await send({"type": "websocket.accept", "subprotocol": negotiated.subprotocol or None, "headers": []})
        except Exception:  # noqa: BLE001 - servers may raise if the client has disconnected
            return
        await AsgiWebSocket(self._checks.context, send).run(negotiated.open_session, handshake, receive)


async def refuse_websocket(scope: Scope, send: Send, response: ErrorResponse) -> None:
    """Refuses a request for a WebSocket. A server without the denial extension responds with 403 in every case."""
    if DENIAL_EXTENSION not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close"})
        return
    body = response.text.encode() + b"\n"
    fields = (
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(body))),
        *((name.lower(), value) for name, value in response.headers),
    )
    headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
    await send({"type": "websocket.http.response.start", "status": response.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
