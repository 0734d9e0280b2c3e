"""How the sessions of one endpoint behave."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class Pings(Enum):
    """Which end sends pings, and how a dead peer is found.

    `PROTOCOL`: the server sends pings of the protocol, and the client must answer. `UNANSWERED`: the same, but the
    client cannot answer; its own end notices a dead connection. `TRANSPORT`: the server sends pings of the transport,
    which answers. `CLIENT`: the client sends pings of the protocol, and the server expects them.
    """

    PROTOCOL = "protocol"
    UNANSWERED = "unanswered"
    TRANSPORT = "transport"
    CLIENT = "client"


class SessionTraits(Struct, frozen=True):
    """Properties that the protocol and the transport of an endpoint give to its sessions."""

    pings: Pings = Pings.PROTOCOL
    connect_is_final: bool = True
    """A client whose connect failed must open another connection. If false, the client may try again."""
    may_stay_anonymous: bool = False
    """The client need not connect. Without this trait the session ends after `client.stale_close_delay`."""
    per_request: bool = False
    """A session lives as long as one request. Its subscriptions have no presence and no join and leave messages."""
    resume_s: float = 0.0
    """Seconds that a connected session waits for another transport after the loss of its own. 0 ends the session."""
