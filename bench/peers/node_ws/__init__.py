"""`ws`, the WebSocket library of most Node.js servers."""

from __future__ import annotations

from pathlib import Path

from bench.peers.nodejs import NodePeer
from bench.peers.text import PROTOCOLS


class NodeWs(NodePeer):
    """Broadcasts with one send() per connection."""

    def __init__(self) -> None:
        super().__init__("node-ws", "ws", Path(__file__).parent, PROTOCOLS)
