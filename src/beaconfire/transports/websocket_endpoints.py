"""The WebSocket endpoints: each selects the wire of a connection and the session that receives it.

They are the same for our own WebSocket connections (`transports.websocket`) and for those of an ASGI server
(`transports.asgi`), which differ in their wires.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from msgspec import Struct

from beaconfire.model.handshake import Handshake
from beaconfire.protocols.port import Wire
from beaconfire.transports.port import ErrorResponse, OpenSession, Receiver, Transport
from beaconfire.transports.websocket_request import WebSocketRequest

JSON_SUBPROTOCOL = "centrifuge-json"
PROTOBUF_SUBPROTOCOL = "centrifuge-protobuf"

OTHER_PATH = "other"
"""The path in `HandshakeRefused` if the requested path is not an endpoint's."""

NOT_FOUND = ErrorResponse(404, "bad", "no WebSocket endpoint here")
FOREIGN_ORIGIN = ErrorResponse(403, "origin", "this origin may not connect")
INTERNAL = ErrorResponse(500, "bad", "internal server error")

_SUBPROTOCOLS = frozenset((JSON_SUBPROTOCOL, PROTOBUF_SUBPROTOCOL))

CentrifugeSessionFactory: TypeAlias = Callable[[WebSocketRequest, Wire, bool], OpenSession]
"""Returns the function that opens the session of a request on this wire. The flag selects WebSocket pings instead of
the protocol's own."""

WebSocketSessionFactory: TypeAlias = Callable[[WebSocketRequest, Wire], OpenSession]
"""Returns the function that opens the session of a request on this wire."""


class NegotiatedHandshake(Struct, frozen=True):
    """The parameters of an accepted connection.

    `open_session` opens its session. `subprotocol` and `extension` are the values of the response headers, empty for
    none. An extension is always compression: with it, the client may send compressed messages.
    """

    open_session: OpenSession
    subprotocol: str = ""
    extension: str = ""


class Endpoint(Protocol):
    """Handles the WebSocket requests for one path."""

    def negotiate(self, request: WebSocketRequest) -> NegotiatedHandshake | ErrorResponse:
        """Called for a valid handshake from an allowed origin. The endpoint must not keep the request."""


class Wires(Protocol):
    """The wires of one codec."""

    def select(self, request: WebSocketRequest) -> tuple[Wire, str]:
        """The wire for a request, and the value of the Sec-WebSocket-Extensions response header (empty for none)."""


class CentrifugeEndpoint:
    """The endpoint `/connection/websocket`: JSON or Protobuf, selected by subprotocol or by query."""

    __slots__ = ("_json", "_protobuf", "_session_factory")

    def __init__(self, json: Wires, protobuf: Wires, session_factory: CentrifugeSessionFactory) -> None:
        self._json = json
        self._protobuf = protobuf
        self._session_factory = session_factory

    def negotiate(self, request: WebSocketRequest) -> NegotiatedHandshake:
        """Selects the first subprotocol that the server knows, and echoes it.

        Without a known subprotocol the query selects the encoding, and JSON is the default.
        """
        subprotocol = next((name for name in request.subprotocols if name in _SUBPROTOCOLS), "")
        if subprotocol:
            binary = subprotocol == PROTOBUF_SUBPROTOCOL
        else:
            binary = "protobuf" in (request.parameter("format"), request.parameter("cf_protocol"))
        wire, extension = (self._protobuf if binary else self._json).select(request)
        transport_pings = request.parameter("cf_ws_frame_ping_pong") == "true"
        return NegotiatedHandshake(self._session_factory(request, wire, transport_pings), subprotocol, extension)


class SingleCodecEndpoint:
    """An endpoint with one codec for all requests."""

    __slots__ = ("_session_factory", "_wires")

    def __init__(self, wires: Wires, session_factory: WebSocketSessionFactory) -> None:
        self._wires = wires
        self._session_factory = session_factory

    def negotiate(self, request: WebSocketRequest) -> NegotiatedHandshake:
        wire, extension = self._wires.select(request)
        return NegotiatedHandshake(self._session_factory(request, wire), extension=extension)


def with_first_message(open_session: OpenSession, message: str) -> OpenSession:
    """As `open_session`, but the session then receives `message` as its first message, unless it is empty."""

    def open_with_message(transport: Transport, handshake: Handshake) -> Receiver:
        receiver = open_session(transport, handshake)
        if message:
            receiver.on_data(message.encode(), False)
        return receiver

    return open_with_message
