"""WebSocket (RFC 6455) over uvicorn and picows: handshake, framing, and one `Transport` per connection."""

from beaconfire.transports.websocket.acceptor import WebSocketAcceptor
from beaconfire.transports.websocket.handshake import Choice, Endpoint, UpgradeRequest
from beaconfire.transports.websocket.native import NativeEndpoint, opened
from beaconfire.transports.websocket.shortcut import Shortcut
from beaconfire.transports.websocket.wires import SimpleEndpoint, Wires

__all__ = [
    "Choice",
    "Endpoint",
    "NativeEndpoint",
    "Shortcut",
    "SimpleEndpoint",
    "UpgradeRequest",
    "WebSocketAcceptor",
    "Wires",
    "opened",
]
