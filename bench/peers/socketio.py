"""The Socket.IO protocol, version 5 on Engine.IO 4, over WebSocket alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from bench.peers.base import Dialect


class SocketIoDialect:
    """Events `join` and `to`, both acknowledged; what is said in a room is the event `message`."""

    path = "/socket.io/?EIO=4&transport=websocket"
    binary = False
    unprompted = 1  # Engine.IO's open packet
    ack = b"431[]"  # to event number 1, which every publish is
    echo = True

    def greetings(self, user: str, channels: Sequence[str]) -> list[bytes]:
        return [b"40", *(self._event(0, "join", channel) for channel in channels)]

    def publish(self, channel: str, data: str) -> bytes:
        return self._event(1, "to", channel, data)

    @staticmethod
    def _event(number: int, *content: str) -> bytes:
        """An event (42) whose acknowledgement (43) has this number, of one digit."""
        return f"42{number}{json.dumps(content, separators=(',', ':'))}".encode()


DIALECTS: Mapping[str, Dialect] = {"json": SocketIoDialect()}
