"""The WebSocket transport under any ASGI server: the server does the framing, and this folder the rest."""

from beaconfire.transports.asgi.endpoint import WebSocketChecks, WebSocketEndpoint, refuse_websocket
from beaconfire.transports.asgi.wire import MessageWires

__all__ = ["MessageWires", "WebSocketChecks", "WebSocketEndpoint", "refuse_websocket"]
