"""Socket.IO on Node.js."""

from __future__ import annotations

from pathlib import Path

from bench.peers.nodejs import NodePeer
from bench.peers.socketio import DIALECTS


class NodeSocketIo(NodePeer):
    """Rooms and acknowledgements as Socket.IO has them, in-memory adapter, WebSocket alone."""

    def __init__(self) -> None:
        super().__init__("node-socketio", "socket.io", Path(__file__).parent, DIALECTS)
