"""The part of a load test that is fixed before it starts: subscriptions of each connection, publisher of each message.

Everything follows from the plan and a number, so workers agree without talking to each other. Connections are numbered
from 0; worker `w` holds connections `w`, `w + workers`, … Messages are numbered from 0 within a run: number `n` goes to
channel `n % channels` as message `n // channels` of this channel. The channel's publishers take turns.
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct

PAYLOAD_BYTES_MIN = 64
"""The data of a message with the longest time and number needs no more."""

PUBLISHERS_MAX = 8
"""Per channel. Several, because servers limit the publish rate of one client. Few, because every subscriber keeps the
number of the last message of each publisher, to detect reordered messages."""

_PATH_DEFAULT = "/connection/websocket"


class Plan(Struct, frozen=True, kw_only=True):
    """What does not change during a load test.

    `url` is complete. With `rooms`, each connection subscribes to one of the channels, otherwise to all of them.
    `token_secret` signs a token for each connection; or connections use the `tokens` in turn; or there are no tokens.
    """

    url: str
    connections: int
    channels: int = 1
    rooms: bool = False
    prefix: str = "bench"
    payload_bytes: int = 128
    protobuf: bool = False
    token_secret: str = ""
    tokens: tuple[str, ...] = ()
    workers: int = 1

    def __repr__(self) -> str:
        """Contains no secrets, because logs and tracebacks may show it."""
        return f"Plan({self.public_url}, {self.connections} connections, {self.channels} channels)"

    @property
    def public_url(self) -> str:
        """The URL without user, password and query, which may contain secrets."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    @property
    def publishers(self) -> int:
        """The number of publishers of each channel. With `rooms`, channels differ by at most one subscriber; all of
        them have as many publishers as the smallest channel can have."""
        return min(PUBLISHERS_MAX, self.connections // self.channels if self.rooms else self.connections)

    @property
    def period(self) -> int:
        """After this many messages, every publisher of every channel has published once."""
        return self.channels * self.publishers

    def channel(self, number: int) -> str:
        return f"{self.prefix}-{number}"

    def channels_of(self, connection: int) -> range:
        """The numbers of the channels that a connection subscribes to."""
        if self.rooms:
            channel = connection % self.channels
            return range(channel, channel + 1)
        return range(self.channels)

    def publisher(self, message: int) -> int:
        """The connection that publishes this message. It is subscribed to the message's channel."""
        channel, turn = message % self.channels, message // self.channels % self.publishers
        if self.rooms:
            return channel + turn * self.channels
        return (channel * self.publishers + turn) % self.connections

    def connections_of(self, worker: int) -> range:
        return range(worker, self.connections, self.workers)


def complete_url(url: str) -> str:
    """Adds the usual path if the URL has none. Raises ValueError, with an example, if it is not a WebSocket URL."""
    parts = urlsplit(url)
    try:
        valid = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("expected a URL like ws://localhost:8000/connection/websocket")
    return urlunsplit(parts._replace(path=_PATH_DEFAULT)) if parts.path in ("", "/") else url
