"""Makes the session of a new connection."""

from __future__ import annotations

from collections.abc import Callable

from beaconfire.model.handshake import Handshake
from beaconfire.protocols.port import ProtocolConnection, Wire
from beaconfire.session.context import SessionContext
from beaconfire.session.session import Session, SessionPhase
from beaconfire.session.transport_link import NewTransport
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

        `client` is an id that the client has chosen. Raises ClientIdInUse if it is the id of a session that is open on
        this node.
        """
        if client:
            self._context.registry.claim(client)
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

    def receive_first(
        self, transport: Transport, handshake: Handshake, read: Callable[[NewTransport, bytes, bool], None]
    ) -> NewTransport:
        """The receiver of a transport that may belong to a session that exists. For `read` see `NewTransport`."""
        return NewTransport(self._context, transport, handshake, read)

    def find_session(self, client: str) -> Session | None:
        """The connected session with this client id on this node, of any endpoint."""
        session = self._context.registry.by_client(client)
        return session if session is not None and session.phase is SessionPhase.CONNECTED else None
