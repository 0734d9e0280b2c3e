"""The command connect: authentication, the connection limits of a user, and server-side subscriptions."""

from __future__ import annotations

import math

from beaconfire.base.clock import Clock
from beaconfire.base.errors import (
    BAD_PROTOCOL,
    CONNECTION_CLOSED,
    CONNECTION_LIMIT,
    EXPIRED,
    PERMISSION_DENIED,
    UNAUTHORIZED,
    CommandError,
    Disconnect,
)
from beaconfire.model.events import EventSink, LimitHit, SessionConnected
from beaconfire.model.identity import Identity
from beaconfire.model.node import NodeIdentity
from beaconfire.model.requests import ConnectRequest
from beaconfire.model.results import ConnectResult
from beaconfire.policy.port import Policy
from beaconfire.session.operations.expiry import Expiry
from beaconfire.session.operations.prepare import Preparation, PreparedSubscription, go_live
from beaconfire.session.operations.server_side import ServerSideSubscriptions
from beaconfire.session.options import ClientOptions
from beaconfire.session.registry import SessionRegistry
from beaconfire.session.session import Session, SessionPhase

APP_NAME_LENGTH_MAX = 64
"""Characters that are kept of the name and version that an SDK gives itself."""


class ConnectHandler:
    """Section 6 of the reference."""

    def __init__(
        self,
        policy: Policy,
        server_side: ServerSideSubscriptions,
        preparation: Preparation,
        expiry: Expiry,
        registry: SessionRegistry[Session],
        node: NodeIdentity,
        options: ClientOptions,
        clock: Clock,
        events: EventSink,
    ) -> None:
        self._policy = policy
        self._server_side = server_side
        self._preparation = preparation
        self._expiry = expiry
        self._registry = registry
        self._node = node
        self._options = options
        self._clock = clock
        self._events = events

    async def connect(self, session: Session, ref: object, request: ConnectRequest) -> None:
        if session.phase is not SessionPhase.NEW:
            if session.traits.connect_first:
                raise Disconnect(BAD_PROTOCOL, "connect was sent twice")
            raise CommandError(PERMISSION_DENIED, "handshake must be the first message of a connection")
        result, subscriptions = await self._establish(session, request)
        live = [(prepared, go_live(prepared)) for prepared in subscriptions]
        session.reply(ref, result)
        for prepared, publications in live:
            self._preparation.complete(session, prepared, publications)

    async def connect_anonymously(self, session: Session) -> None:
        """Connects a session of the plain protocol whose client sent another message first. There is no reply."""
        _, subscriptions = await self._establish(session, ConnectRequest())
        for prepared in subscriptions:
            self._preparation.complete(session, prepared, go_live(prepared))

    async def _establish(
        self, session: Session, request: ConnectRequest
    ) -> tuple[ConnectResult, list[PreparedSubscription]]:
        """Everything of connect but the reply.

        After a CommandError, a session that must connect first can only disconnect.
        """
        session.phase = SessionPhase.CONNECTING
        try:
            identity = await self._policy.connect(request)
            self._authenticate(session, identity)
            permitted = await self._server_side.permitted(session, identity, request)
            subscriptions = await self._server_side.prepare(session, permitted)
        except CommandError as error:
            self._undo(session)
            if error.code is UNAUTHORIZED and session.traits.connect_first:
                raise Disconnect(BAD_PROTOCOL, error.detail) from error
            raise
        except Disconnect:
            raise
        except Exception:
            self._undo(session)  # the policy or the engine failed
            raise
        _check_open(session)
        session.phase = SessionPhase.CONNECTED
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
        return self._result(session, subscriptions), subscriptions

    def _authenticate(self, session: Session, identity: Identity) -> None:
        """Gives the session its identity. Raises CommandError 110 or Disconnect 3504."""
        _check_open(session)
        options, registry = self._options, self._registry
        if self._expiry.is_over(identity.expire_at_unix_s) and not options.insecure:
            raise CommandError(EXPIRED, "expire_at is in the past")
        limit = options.user_connection_limit
        if limit and identity.user and registry.count_user(identity.user) >= limit:
            self._events.emit(LimitHit("client.user_connection_limit", session.client))
            raise Disconnect(CONNECTION_LIMIT, "the user has client.user_connection_limit connections already")
        session.identity = identity
        registry.add(session)

    def _undo(self, session: Session) -> None:
        """Takes identity and subscriptions away from a session whose connect failed with an error."""
        self._registry.remove(session)
        for subscription in list(session.subscriptions.values()):
            if subscription.channel != session.traits.lobby:
                session.unsubscribe(subscription)
        session.identity = Identity()
        if not session.has_ended():
            if session.traits.connect_first:
                session.phase = SessionPhase.REFUSED
                session.handshake = None
            else:
                session.phase = SessionPhase.NEW

    def _result(self, session: Session, subscriptions: list[PreparedSubscription]) -> ConnectResult:
        options = self._options
        ttl_s = self._expiry.connection_ttl_s(session.identity)
        # Rounded up, because 0 would mean that the server sends no pings, and clients would not answer them.
        ping_s = math.ceil(options.ping_interval) if session.traits.app_pings else 0
        secret = session.transport.secret
        return ConnectResult(
            client=session.client,
            version=self._node.product,
            expires=ttl_s > 0,
            ttl=ttl_s,
            subs={prepared.subscription.channel: prepared.result for prepared in subscriptions},
            ping=ping_s,
            pong=ping_s > 0 and not session.traits.unidirectional,
            session=secret,
            node=self._node.uid if secret else "",
            time=int(self._clock.unix_s() * 1000) if options.connect_include_server_time else 0,
        )


def _check_open(session: Session) -> None:
    if session.has_ended():
        raise Disconnect(CONNECTION_CLOSED, "the connection ended while connecting")
