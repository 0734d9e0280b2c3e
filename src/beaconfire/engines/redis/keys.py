"""The names of keys and of announcements at the server.

All names of a channel have the same hash tag, so that a cluster keeps them together. The tag is there without a cluster
as well: then a single server can become a cluster. In the names of channels, `}` and `%` are escaped, so that the tag
is the whole name.
"""

from __future__ import annotations

from binascii import crc_hqx
from typing import Final, NamedTuple

SLOTS: Final = 16384
"""How many slots the keys of a cluster are divided into."""


def slot_of(key: bytes) -> int:
    """The slot of a key: CRC16 of its hash tag, see the specification of Redis Cluster."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


class ChannelKeys(NamedTuple):
    """The names of one channel for its stream. See the scripts for what each key contains."""

    announcement: bytes
    meta: bytes
    stream: bytes


class PresenceKeys(NamedTuple):
    """The names of one channel for its presence."""

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
        self._prefix = f"{prefix}:{{"
        self._node = f"{prefix}::{{control}}:node:%s"
        self._era = f"{prefix}::{{%s}}:era"
        self._mark = f"{prefix}::{{%s}}:mark"
        self._probe = f"{prefix}::{{%s}}:probe:%s"

    def channel(self, channel: str) -> ChannelKeys:
        name = self._name(channel)
        return ChannelKeys(
            name.encode(),
            f"{name}:m".encode(),
            f"{name}:s".encode(),
        )

    def presence(self, channel: str) -> PresenceKeys:
        name = self._name(channel)
        return PresenceKeys(
            f"{name}:e".encode(),
            f"{name}:x".encode(),
            f"{name}:u".encode(),
        )

    def producers(self, channel: str) -> bytes:
        """The order of the channel's producers."""
        return f"{self._name(channel)}:p".encode()

    def announcement(self, channel: str) -> bytes:
        return self._name(channel).encode()

    def receipt(self, channel: str, key: str) -> bytes:
        """The receipt of an idempotency key."""
        return f"{self._name(channel)}:i:{key}".encode()

    def node(self, uid: str) -> bytes:
        """The announcement of messages to one node."""
        return (self._node % uid).encode()

    def era(self, tag: str) -> bytes:
        """The lineage of the master to which the hash tag belongs."""
        return (self._era % tag).encode()

    def mark(self, tag: str) -> bytes:
        """What is written to find out how far the writes before it have got."""
        return (self._mark % tag).encode()

    def probe(self, tag: str, name: str) -> bytes:
        """The announcement that a link makes to itself."""
        return (self._probe % (tag, name)).encode()

    def _name(self, channel: str) -> str:
        if not channel:
            channel = "%"
        elif "}" in channel or "%" in channel:
            channel = channel.replace("%", "%25").replace("}", "%7D")
        return f"{self._prefix}{channel}}}"
