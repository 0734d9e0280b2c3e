"""Ends the sessions and subscriptions of this node whose tokens were revoked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from beaconfire.base.errors import (
    CONNECTION_EXPIRED,
    FORCE_RECONNECT,
    SUBSCRIPTION_EXPIRED,
    UNSUBSCRIBED_EXPIRED,
    DisconnectCode,
)
from beaconfire.base.loop import SLICE_S, Runtime
from beaconfire.delivery.subscription import Subscription
from beaconfire.model.events import EventSink, RevocationApplied
from beaconfire.session.registry import SessionRegistry
from beaconfire.session.revocations import Revocation, Revocations
from beaconfire.session.session import Session

WALK_DELAY_S: Final = 0.1
"""How long revocations by token id wait, so that one walk over all sessions serves many of them."""

DRAIN_TIMEOUT_S: Final = 0.7
"""How long frames may wait that perhaps belong to an ended subscription. With the 0.1 s of coarse timers, and of the
walk, this is less than a second."""


class RevokedSessions:
    """Looks for sessions and subscriptions whose token is void, in slices of a few milliseconds.

    The client of an ended session gets 3005, and that of an ended subscription 2501 (3006 if the subscription is
    server-side). After each of them SDKs come back, get error 109 for the old token, and fetch a new one. Nothing that
    was queued is sent any more. What the connection has already taken is on its way to the client.
    """

    def __init__(
        self, registry: SessionRegistry[Session], revocations: Revocations, runtime: Runtime, events: EventSink
    ) -> None:
        self._registry = registry
        self._revocations = revocations
        self._timers = runtime.timers
        self._schedule = runtime.schedule
        self._events = events
        self._is_walk_due = False

    def enforce(self, revocation: Revocation) -> None:
        """Ends what this revocation makes void. A user is found at once, a token id needs a walk over all sessions."""
        if revocation.user:
            self._check_all(iter(self._registry.by_user(revocation.user)))
        elif not self._is_walk_due:
            self._is_walk_due = True
            self._timers.after(WALK_DELAY_S, self._walk)

    def _walk(self) -> None:
        self._is_walk_due = False
        self._check_all(iter(self._registry))

    def _check_all(self, sessions: Iterator[Session]) -> None:
        now_s = self._timers.clock.now_s
        end_s = now_s() + SLICE_S
        for session in sessions:
            self._check(session)
            if now_s() > end_s:
                self._schedule(lambda: self._check_all(sessions))
                return

    def _check(self, session: Session) -> None:
        revocations = self._revocations
        if session.has_ended():
            return
        if revocations.revokes_session(session.identity):
            self._end_session(session, CONNECTION_EXPIRED, "the connection token was revoked")
            return
        for subscription in list(session.subscriptions.values()):
            if revocations.revokes_subscription(session.user, subscription.channel, subscription.grant):
                self._end_subscription(session, subscription)

    def _end_session(self, session: Session, code: DisconnectCode, detail: str) -> None:
        self._events.emit(RevocationApplied("session"))
        for subscription in session.subscriptions.values():
            subscription.end()  # or the end of the session would send what is pending for them
        session.outbox.drop()
        session.end(code, detail)

    def _end_subscription(self, session: Session, subscription: Subscription) -> None:
        if session.has_ended():
            return
        if subscription.options.server_side:
            detail = f"the token of the subscription to {subscription.channel!r} was revoked"
            self._end_session(session, SUBSCRIPTION_EXPIRED, detail)
            return
        self._events.emit(RevocationApplied("subscription"))
        is_behind = session.waiting_bytes > 0
        subscription.end()  # or the end of the subscription would send what is pending for it
        session.unsubscribe_with_push(subscription, UNSUBSCRIBED_EXPIRED)
        if is_behind:
            self._timers.after(DRAIN_TIMEOUT_S, lambda: self._check_drained(session))

    def _check_drained(self, session: Session) -> None:
        """Frames of the channel may still wait among those of other channels. Nobody can tell which."""
        if session.has_ended():
            return
        session.outbox.flush()
        if session.waiting_bytes:
            self._end_session(session, FORCE_RECONNECT, "messages of a revoked subscription could not be sent in time")
