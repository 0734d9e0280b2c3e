"""A new connection becomes a session."""

from __future__ import annotations

from collections.abc import Callable

from beaconfire.delivery.subscription import Subscription, SubscriptionOptions
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.node.node import Node
from beaconfire.protocols.port import Wire
from beaconfire.session.operations.dispatch import dispatch
from beaconfire.session.operations.upkeep import upkeep
from beaconfire.session.session import Session
from beaconfire.session.traits import SessionTraits
from beaconfire.transports.port import Transport


class SessionFactory:
    """Makes the sessions of one endpoint, on whatever transport."""

    def __init__(self, node: Node, traits: SessionTraits, new_id: Callable[[], str]) -> None:
        """`new_id` makes connection ids: unique for all time, and not to be guessed."""
        self._node = node
        self._traits = traits
        self._new_id = new_id

    def open_session(self, transport: Transport, wire: Wire, traits: SessionTraits | None = None) -> Session:
        """A session for a transport that is up. `traits` replaces the endpoint's for this one."""
        session = Session(self._node, self._new_id(), transport, wire, traits or self._traits, dispatch, upkeep)
        if session.traits.lobby is not None:
            self._enter_lobby(session, session.traits.lobby)
        return session

    def _enter_lobby(self, session: Session, lobby: str) -> None:
        """Everyone is in the lobby from the start: no permission, no presence, no position, nothing announced."""
        node = self._node
        subscription = Subscription(
            lobby,
            node.namespaces.resolve(lobby),
            session,
            SubscriptionOptions(server_side=True),
            SubscriptionGrant(),
            session.info(lobby),
        )
        session.subscriptions[lobby] = subscription
        node.hub.add(subscription)
        subscription.go_live(None)
        node.background.start(node.attachments.attach(lobby))
