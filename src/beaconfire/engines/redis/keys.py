"""The names of keys and of announcements at the server.

All names of a channel have the same hash tag, so that a cluster keeps them together. The tag is there without a cluster
as well: then a single server can become a cluster. In the names of channels, `}` and `%` are escaped, so that the tag
is the whole name.
"""

from __future__ import annotations

from typing import NamedTuple


class ChannelKeys(NamedTuple):
    """The names of one channel. See the scripts for what each key contains."""

    announcement: bytes
    meta: bytes
    stream: bytes
    producers: bytes
    entries: bytes
    expiry: bytes
    users: bytes


class Keys:
    """The names under one prefix. Nodes with the same prefix and server form one cluster of nodes."""

    def __init__(self, prefix: str) -> None:
        self.control = f"{prefix}::{{control}}".encode()
        """The announcement of broadcasts."""
        self.nodes = f"{prefix}::{{control}}:nodes".encode()
        """The leases of nodes."""
        self.era = f"{prefix}::{{era}}".encode()
        self._prefix = f"{prefix}:{{"
        self._node = f"{prefix}::{{control}}:node:%s"
        self._probe = f"{prefix}::{{era}}:probe:%s"

    def channel(self, channel: str) -> ChannelKeys:
        name = self._name(channel)
        return ChannelKeys(
            name.encode(),
            f"{name}:m".encode(),
            f"{name}:s".encode(),
            f"{name}:p".encode(),
            f"{name}:e".encode(),
            f"{name}:x".encode(),
            f"{name}:u".encode(),
        )

    def announcement(self, channel: str) -> bytes:
        return self._name(channel).encode()

    def receipt(self, channel: str, key: str) -> bytes:
        """The receipt of an idempotency key."""
        return f"{self._name(channel)}:i:{key}".encode()

    def node(self, uid: str) -> bytes:
        """The announcement of messages to one node."""
        return (self._node % uid).encode()

    def probe(self, name: str) -> bytes:
        """The announcement that a link makes to itself."""
        return (self._probe % name).encode()

    def _name(self, channel: str) -> str:
        if "}" in channel or "%" in channel:
            channel = channel.replace("%", "%25").replace("}", "%7D")
        return f"{self._prefix}{channel}}}"
