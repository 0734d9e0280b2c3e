"""Connecting: authentication, the connection limits of a user, and server-side subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from beaconfire.base.errors import (
    CONNECTION_CLOSED,
    CONNECTION_LIMIT,
    EXPIRED,
    CommandError,
    Disconnect,
)
from beaconfire.model.events import EventSink, LimitHit, SessionConnected
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.requests import ConnectionRequest
from beaconfire.model.results import ConnectionStart
from beaconfire.policy.tickets import ConnectionTicket
from beaconfire.session.operations.decisions import Decisions
from beaconfire.session.operations.expiry import Expiry
from beaconfire.session.operations.prepare import Preparation, PreparedSubscription
from beaconfire.session.operations.resume import Resuming
from beaconfire.session.operations.server_side import ServerSideSubscriptions
from beaconfire.session.options import ClientOptions
from beaconfire.session.registry import SessionRegistry
from beaconfire.session.session import Session, SessionPhase
from beaconfire.session.user_connections import LIMIT as USER_CONNECTION_LIMIT
from beaconfire.session.user_connections import UserConnections

_NO_GRANTS: Final[Mapping[str, SubscriptionGrant]] = {}

APP_NAME_LENGTH_MAX = 64
"""Characters that are kept of the name and version that an SDK gives itself."""


class Connecting:
    """Section 6 of the reference."""

    def __init__(
        self,
        decisions: Decisions,
        server_side: ServerSideSubscriptions,
        preparation: Preparation,
        expiry: Expiry,
        registry: SessionRegistry[Session],
        options: ClientOptions,
        events: EventSink,
        resuming: Resuming,
        user_connections: UserConnections | None = None,
    ) -> None:
        """`user_connections` counts over all nodes, if there is a limit and may be several nodes."""
        self._user_connections = user_connections
        self._decisions = decisions
        self._server_side = server_side
        self._preparation = preparation
        self._expiry = expiry
        self._registry = registry
        self._options = options
        self._events = events
        self._resuming = resuming

    async def connect(
        self, session: Session, request: ConnectionRequest, reply: Callable[[ConnectionStart], None]
    ) -> None:
        """Authenticates a new session and makes its server-side subscriptions.

        `reply` is called when the session is connected, before anything else is sent to the client. After a
        CommandError the client may try again, unless `SessionTraits.connect_is_final`.
        """
        assert session.phase is SessionPhase.NEW, "the session is new"
        ticket = self._resuming.connection(request)
        subscriptions = await self._establish(session, request, ticket)
        start = ConnectionStart(
            session.client,
            self._expiry.connection_ttl_s(session.identity),
            session.identity.data,
            [prepared.start for prepared in subscriptions],
            "" if ticket is not None else self._resuming.issue(session, request.token),  # the client keeps its ticket
        )
        self._preparation.enter(session, subscriptions, lambda: reply(start))

    async def _establish(
        self, session: Session, request: ConnectionRequest, ticket: ConnectionTicket | None
    ) -> list[PreparedSubscription]:
        """Everything of connect but the reply."""
        session.phase = SessionPhase.CONNECTING
        prepared: list[PreparedSubscription] = []
        try:
            if ticket is None:
                identity, grants = await self._decisions.connect(session, request), _NO_GRANTS
            else:
                identity, grants = self._decisions.resume(ticket.identity), ticket.grants
            self._authenticate(session, identity)
            if self._user_connections is not None:
                await self._user_connections.add(session)
                _check_open(session)
            permitted = await self._server_side.permitted(session, identity, request, grants)
            await self._server_side.prepare(session, request, permitted, prepared)
        except Disconnect:
            raise
        except BaseException:  # the policy or the engine has refused, has failed or was cancelled
            self._undo(session, prepared)
            raise
        _check_open(session)
        session.phase = SessionPhase.CONNECTED
        session.wants_tickets = request.wants_tickets
        session.app_name = request.name[:APP_NAME_LENGTH_MAX]
        session.app_version = request.version[:APP_NAME_LENGTH_MAX]
        session.keepalive.connected()
        self._expiry.watch_connection(session)
        self._events.emit(
            SessionConnected(
                client=session.client,
                user=session.user,
                transport=session.transport.name,
                protocol=session.wire.codec.name,
                name=session.app_name,
                version=session.app_version,
            )
        )
        session.handshake = None
        return prepared

    def _authenticate(self, session: Session, identity: Identity) -> None:
        """Gives the session its identity. Raises CommandError 110 or Disconnect 3504."""
        _check_open(session)
        options, registry = self._options, self._registry
        if self._expiry.is_over(identity.expire_at_unix_s) and not options.insecure:
            raise CommandError(EXPIRED, "expire_at is in the past")
        limit = options.user_connection_limit
        if limit and identity.user and registry.count_user(identity.user) >= limit:
            self._events.emit(LimitHit(USER_CONNECTION_LIMIT, session.client))
            raise Disconnect(CONNECTION_LIMIT, f"the user has {USER_CONNECTION_LIMIT} connections already")
        session.identity = identity
        registry.add(session)

    def _undo(self, session: Session, prepared: list[PreparedSubscription]) -> None:
        """Takes identity and subscriptions away from a session whose connect failed with an error."""
        self._registry.remove(session)
        for made in prepared:
            session.unsubscribe(made.subscription)
        session.identity = Identity()
        if not session.has_ended():
            final = session.traits.connect_is_final
            session.phase = SessionPhase.REFUSED if final else SessionPhase.NEW
            if final:
                session.handshake = None


def _check_open(session: Session) -> None:
    if session.has_ended():
        raise Disconnect(CONNECTION_CLOSED, "the connection ended while connecting")
