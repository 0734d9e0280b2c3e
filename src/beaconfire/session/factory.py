"""Makes the session of a new connection."""

from __future__ import annotations

from collections.abc import Callable

from beaconfire.model.handshake import Handshake
from beaconfire.protocols.port import ProtocolConnection, Wire
from beaconfire.session.context import SessionContext
from beaconfire.session.session import Session
from beaconfire.transports.port import Transport
from beaconfire.transports.traits import SessionTraits


class SessionFactory:
    """Makes the sessions of one endpoint, on any transport."""

    def __init__(
        self,
        context: SessionContext[Session],
        upkeep: Callable[[Session], None],
        traits: SessionTraits,
        make_protocol: Callable[[Session], ProtocolConnection],
        new_id: Callable[[], str],
    ) -> None:
        """`new_id` makes client ids. They must be unique and impossible to guess."""
        self._context = context
        self._upkeep = upkeep
        self._traits = traits
        self._make_protocol = make_protocol
        self._new_id = new_id

    def open_session(
        self,
        transport: Transport,
        wire: Wire,
        handshake: Handshake,
        traits: SessionTraits | None = None,
        client: str = "",
    ) -> Session:
        """A session on an open transport. `traits` replaces the traits of the endpoint.


        `client` is an id that the client has chosen. It must not be the id of a session that is open on this node.
        """
        return Session(
            self._context,
            client or self._new_id(),
            transport,
            wire,
            handshake,
            traits or self._traits,
            self._make_protocol,
            self._upkeep,
        )
