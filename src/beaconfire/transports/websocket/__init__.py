"""WebSocket (RFC 6455) over uvicorn and picows: handshake, framing, and one `Transport` per connection."""

from beaconfire.transports.websocket.acceptor import Admit, WebSocketAcceptor
from beaconfire.transports.websocket.framing import WebSocketWire
from beaconfire.transports.websocket.handshake import Choice, Endpoint, Refusal, SimpleEndpoint, UpgradeRequest
from beaconfire.transports.websocket.native import NativeEndpoint
from beaconfire.transports.websocket.shortcut import Shortcut

__all__ = [
    "Admit",
    "Choice",
    "Endpoint",
    "NativeEndpoint",
    "Refusal",
    "Shortcut",
    "SimpleEndpoint",
    "UpgradeRequest",
    "WebSocketAcceptor",
    "WebSocketWire",
]
