"""Socket.IO on Node.js."""

from __future__ import annotations

from pathlib import Path

from bench.peers.nodejs import NodePeer
from bench.peers.socketio import PROTOCOLS


class NodeSocketIo(NodePeer):
    """The rooms and acknowledgements of Socket.IO, in-memory adapter, WebSocket only."""

    def __init__(self) -> None:
        super().__init__("node-socketio", "socket.io", Path(__file__).parent, PROTOCOLS)
