"""The dialect of servers that have no protocol of their own: two words of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.peers.base import Dialect


class TextDialect:
    """`join <channel>` is answered by `joined`; `to <channel> <data>` sends data to all in it, and `+` to the sender.

    The acknowledgement comes when the data have been handed to every connection of the channel. A client may be in
    several channels.
    """

    path = "/"
    binary = False
    unprompted = 0
    ack = b"+"
    echo = True

    def greetings(self, user: str, channels: Sequence[str]) -> list[bytes]:
        return [f"join {channel}".encode() for channel in channels]

    def publish(self, channel: str, data: str) -> bytes:
        return f"to {channel} {data}".encode()


DIALECTS: Mapping[str, Dialect] = {"text": TextDialect()}

CAPABILITIES = frozenset({"fanout", "rooms", "acks"})
"""What rooms and acknowledgements alone allow."""
