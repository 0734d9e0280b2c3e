"""How the sessions of one endpoint behave."""

from __future__ import annotations

from msgspec import Struct


class SessionTraits(Struct, frozen=True):
    """Properties that the protocol and the transport of an endpoint give to its sessions."""

    connect_first: bool = True
    """The first command must be connect."""
    app_pings: bool = True
    """Pings are messages of the protocol. If false, the transport's own pings are used."""
    lobby: str | None = None
    """The channel that every connection is subscribed to from the start."""
    unidirectional: bool = False
    """The client sends nothing after connect, so it cannot answer pings of the protocol. Where other clients get an
    error reply, its session is disconnected."""
    per_request: bool = False
    """A session lives as long as one request. Its subscriptions have no presence and no join and leave messages."""
