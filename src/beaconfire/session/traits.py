"""How the sessions of one endpoint behave."""

from __future__ import annotations

from msgspec import Struct


class SessionManners(Struct, frozen=True):
    """How the sessions of one endpoint behave, whoever they are.

    `connect_first`: the first command must be connect. `app_pings`: pings are messages of the protocol. `lobby`: the
    channel every connection is in from the start, or None. `listens_only`: connect is all the client ever says; it
    cannot answer pings of the protocol, and is disconnected where others would get an error. `passing`: sessions last
    as long as a request, so that they are in nobody's presence.
    """

    connect_first: bool = True
    app_pings: bool = True
    lobby: str | None = None
    listens_only: bool = False
    passing: bool = False
