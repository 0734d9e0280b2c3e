"""How a client of the native protocol begins: the encoding it gets, and what it says in its request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from beaconfire.protocols.port import Wire
from beaconfire.transports.port import OpenSession, Receiver, Transport
from beaconfire.transports.websocket.handshake import Choice, UpgradeRequest
from beaconfire.transports.websocket.wires import Wires

JSON_SUBPROTOCOL = "centrifuge-json"
PROTOBUF_SUBPROTOCOL = "centrifuge-protobuf"

Arrange: TypeAlias = Callable[[UpgradeRequest, Wire, bool], OpenSession]
"""Makes the arrival of a connection on this wire; the flag asks for the transport's pings instead of the protocol's."""


class NativeEndpoint:
    """The endpoint `/connection/websocket`: JSON or Protobuf, chosen by subprotocol or by query."""

    __slots__ = ("_arrange", "_json", "_protobuf")

    def __init__(self, json: Wires, protobuf: Wires, arrange: Arrange) -> None:
        self._json = json
        self._protobuf = protobuf
        self._arrange = arrange

    def choose(self, request: UpgradeRequest) -> Choice:
        """The first subprotocol we know wins and is echoed; without one the query decides, and JSON is the default."""
        subprotocol = next((name for name in request.subprotocols if name in _SUBPROTOCOLS), "")
        if subprotocol:
            binary = subprotocol == PROTOBUF_SUBPROTOCOL
        else:
            binary = "protobuf" in (request.parameter("format"), request.parameter("cf_protocol"))
        wire, extension = (self._protobuf if binary else self._json).choose(request)
        transport_pings = request.parameter("cf_ws_frame_ping_pong") == "true"
        return Choice(self._arrange(request, wire, transport_pings), subprotocol, extension)


def opened(open_session: OpenSession, opening: str) -> OpenSession:
    """As `open_session`, and then gives the session its first message, `opening`, unless that is empty."""

    def open_with_message(transport: Transport) -> Receiver:
        receiver = open_session(transport)
        if opening:
            receiver.on_data(opening.encode(), False)
        return receiver

    return open_with_message


_SUBPROTOCOLS = frozenset((JSON_SUBPROTOCOL, PROTOBUF_SUBPROTOCOL))
