"""The WebSocket transport (RFC 6455) on uvicorn and picows: handshake, framing, and one `Transport` per connection."""

from beaconfire.transports.websocket.acceptor import WebSocketAcceptor
from beaconfire.transports.websocket.handshake import UpgradeRequest
from beaconfire.transports.websocket.upgrade_detector import UpgradeDetector
from beaconfire.transports.websocket.wire_selector import WireSelector

__all__ = ["UpgradeDetector", "UpgradeRequest", "WebSocketAcceptor", "WireSelector"]
