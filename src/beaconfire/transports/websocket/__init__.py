"""The WebSocket transport (RFC 6455) on uvicorn and picows: handshake, framing, and one `Transport` per connection."""

from beaconfire.transports.websocket.acceptor import WebSocketAcceptor
from beaconfire.transports.websocket.endpoints import CentrifugeEndpoint, SingleCodecEndpoint, with_first_message
from beaconfire.transports.websocket.handshake import Endpoint, NegotiatedHandshake, UpgradeRequest
from beaconfire.transports.websocket.upgrade_detector import UpgradeDetector
from beaconfire.transports.websocket.wire_selector import WireSelector

__all__ = [
    "CentrifugeEndpoint",
    "Endpoint",
    "NegotiatedHandshake",
    "SingleCodecEndpoint",
    "UpgradeDetector",
    "UpgradeRequest",
    "WebSocketAcceptor",
    "WireSelector",
    "with_first_message",
]
