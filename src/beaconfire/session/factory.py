"""Makes the session of a new connection."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from beaconfire.channels.namespaces import Namespaces
from beaconfire.delivery.subscription import Subscription, SubscriptionOptions
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.handshake import Handshake
from beaconfire.model.requests import Command
from beaconfire.protocols.port import Wire
from beaconfire.session.context import SessionContext
from beaconfire.session.session import Session
from beaconfire.transports.port import Transport
from beaconfire.transports.traits import SessionTraits


class SessionFactory:
    """Makes the sessions of one endpoint, on any transport."""

    def __init__(
        self,
        context: SessionContext[Session],
        dispatch: Callable[[Session, Command], Coroutine[Any, Any, None]],
        upkeep: Callable[[Session], Coroutine[Any, Any, None]],
        namespaces: Namespaces,
        traits: SessionTraits,
        new_id: Callable[[], str],
    ) -> None:
        """`new_id` makes client ids. They must be unique and impossible to guess."""
        self._context = context
        self._dispatch = dispatch
        self._upkeep = upkeep
        self._namespaces = namespaces
        self._traits = traits
        self._new_id = new_id

    def open_session(
        self, transport: Transport, wire: Wire, handshake: Handshake, traits: SessionTraits | None = None
    ) -> Session:
        """A session on an open transport. `traits` replaces the traits of the endpoint."""
        session = Session(
            self._context,
            self._new_id(),
            transport,
            wire,
            handshake,
            traits or self._traits,
            self._dispatch,
            self._upkeep,
        )
        if session.traits.lobby is not None:
            self._enter_lobby(session, session.traits.lobby)
        return session

    def _enter_lobby(self, session: Session, lobby: str) -> None:
        """Subscribes the session to the lobby, without permission, presence, position, join and leave."""
        subscription = Subscription(
            lobby,
            self._namespaces.resolve(lobby),
            session,
            SubscriptionOptions(server_side=True),
            SubscriptionGrant(),
            session.info(lobby),
        )
        session.subscriptions[lobby] = subscription
        memberships = self._context.memberships
        memberships.add(subscription)
        subscription.go_live(None)
        self._context.background.start(memberships.attach(lobby))
