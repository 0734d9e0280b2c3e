"""How the sessions of one endpoint behave."""

from __future__ import annotations

from msgspec import Struct


class SessionTraits(Struct, frozen=True):
    """How the sessions of one endpoint behave, whoever they are.

    `connect_first`: the first command must be connect. `app_pings`: pings are messages of the protocol. `lobby`: the
    channel every connection is in from the start, or None. `unidirectional`: connect is all the client ever says; it
    cannot answer pings of the protocol, and is disconnected where others would get an error. `passing`: sessions last
    as long as a request, so that they are in nobody's presence.
    """

    connect_first: bool = True
    app_pings: bool = True
    lobby: str | None = None
    unidirectional: bool = False
    per_request: bool = False
