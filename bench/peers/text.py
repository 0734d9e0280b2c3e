"""The protocol for servers that have no application protocol: two commands in text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.peers.base import PeerProtocol


class TextProtocol:
    """`join <channel>` is answered with `joined`. `to <channel> <data>` sends the data to all connections in the
    channel, and then `+` to the publisher.

    The server sends the acknowledgement when it has passed the data to every connection of the channel. A client may be
    in several channels.
    """

    path = "/"
    binary = False
    initial_messages = 0
    ack = b"+"
    echo = True

    def setup_messages(self, user: str, channels: Sequence[str]) -> list[bytes]:
        return [f"join {channel}".encode() for channel in channels]

    def publish(self, channel: str, data: str) -> bytes:
        return f"to {channel} {data}".encode()


PROTOCOLS: Mapping[str, PeerProtocol] = {"text": TextProtocol()}

CAPABILITIES = frozenset({"fanout", "rooms", "acks"})
"""The capabilities of a server with only rooms and acknowledgements."""
