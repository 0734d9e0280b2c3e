"""WebSocket (RFC 6455) over uvicorn and picows: handshake, framing, and one `Transport` per connection."""

from beaconfire.transports.websocket.acceptor import WebSocketAcceptor
from beaconfire.transports.websocket.framing import WebSocketWire
from beaconfire.transports.websocket.handshake import Choice, Endpoint, SimpleEndpoint, UpgradeRequest
from beaconfire.transports.websocket.native import NativeEndpoint, opened
from beaconfire.transports.websocket.shortcut import Shortcut

__all__ = [
    "Choice",
    "Endpoint",
    "NativeEndpoint",
    "Shortcut",
    "SimpleEndpoint",
    "UpgradeRequest",
    "WebSocketAcceptor",
    "WebSocketWire",
    "opened",
]
