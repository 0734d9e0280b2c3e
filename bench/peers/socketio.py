"""The Socket.IO protocol, version 5 on Engine.IO 4, over WebSocket only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from bench.peers.base import PeerProtocol


class SocketIoProtocol:
    """Events `join` and `to`, both acknowledged. A message in a room is the event `message`."""

    path = "/socket.io/?EIO=4&transport=websocket"
    binary = False
    initial_messages = 1  # Engine.IO's open packet
    ack = b"431[]"  # acknowledges event number 1, the number of every publish
    echo = True

    def setup_messages(self, user: str, channels: Sequence[str]) -> list[bytes]:
        return [b"40", *(self._event(0, "join", channel) for channel in channels)]

    def publish(self, channel: str, data: str) -> bytes:
        return self._event(1, "to", channel, data)

    @staticmethod
    def _event(number: int, *content: str) -> bytes:
        """An event (42) whose acknowledgement (43) has this number (one digit)."""
        return f"42{number}{json.dumps(content, separators=(',', ':'))}".encode()


PROTOCOLS: Mapping[str, PeerProtocol] = {"json": SocketIoProtocol()}
