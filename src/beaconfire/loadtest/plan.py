"""What a load test does, as decided before it begins: who is in which channel, and who publishes what.

Everything follows from the plan and a number, so workers agree without talking to each other. Connections are numbered
from 0 and belong to workers in turn. Messages are numbered from 0 within a run: number `n` goes to channel
`n % channels` as its message `n // channels`, published by one of the channel's publishers, who take turns.
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct

PAYLOAD_BYTES_MIN = 64
"""What a mark needs at most, with room for its filling."""

PUBLISHERS_MAX = 8
"""Per channel. Several, because servers limit how much one client may publish; few, because every subscriber remembers
the last message of each to tell what was reordered."""

_PATH_DEFAULT = "/connection/websocket"


class Plan(Struct, frozen=True, kw_only=True):
    """The part of a load test that does not change while it runs.

    `url` is complete. `rooms` tells how connections meet: each in one of the channels, or else each in all of them.
    Tokens: `token_secret` signs one for each connection, or the lines of `tokens` serve in turn, or there are none.
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
        """Without secrets, wherever it may be shown."""
        return f"Plan({self.shown_url}, {self.connections} connections, {self.channels} channels)"

    @property
    def shown_url(self) -> str:
        """The URL without what may be a secret."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    @property
    def publishers(self) -> int:
        """Of each channel. Rooms differ in size by at most one; the smallest counts for all."""
        return min(PUBLISHERS_MAX, self.connections // self.channels if self.rooms else self.connections)

    @property
    def period(self) -> int:
        """After so many messages every publisher of every channel has had its turn."""
        return self.channels * self.publishers

    def channel(self, number: int) -> str:
        return f"{self.prefix}-{number}"

    def channels_of(self, connection: int) -> range:
        """The numbers of the channels that a connection subscribes to."""
        if self.rooms:
            room = connection % self.channels
            return range(room, room + 1)
        return range(self.channels)

    def publisher(self, message: int) -> int:
        """The connection that publishes this message. It is in the message's channel."""
        channel, turn = message % self.channels, message // self.channels % self.publishers
        if self.rooms:
            return channel + turn * self.channels
        return (channel * self.publishers + turn) % self.connections

    def connections_of(self, worker: int) -> range:
        return range(worker, self.connections, self.workers)


def complete_url(url: str) -> str:
    """The URL with the usual path if it has none. Raises ValueError with what was expected."""
    parts = urlsplit(url)
    try:
        usable = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("expected a URL like ws://localhost:8000/connection/websocket")
    return urlunsplit(parts._replace(path=_PATH_DEFAULT)) if parts.path in ("", "/") else url
