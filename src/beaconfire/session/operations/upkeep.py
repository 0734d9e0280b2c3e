"""Ends the subscriptions of a session that have expired."""

from __future__ import annotations

from beaconfire.base.clock import Clock
from beaconfire.base.errors import SUBSCRIPTION_EXPIRED, UNSUBSCRIBED_EXPIRED
from beaconfire.delivery.subscription import Subscription, SubscriptionPhase
from beaconfire.session.operations.expiry import Expiry
from beaconfire.session.session import Session


class Upkeep:
    """Runs when the keepalive of a session says so: at the time that `Expiry.watch_subscription` has set."""

    def __init__(self, expiry: Expiry, clock: Clock) -> None:
        self._expiry = expiry
        self._clock = clock

    def run(self, session: Session) -> None:
        """Ends expired subscriptions. For the others with an expiry, the keepalive runs this again in time."""
        now_s = self._clock.now_s()
        for subscription in list(session.subscriptions.values()):
            if not subscription.replied or subscription.phase is SubscriptionPhase.ENDED:
                continue  # the subscription is being made, or it ended while this method ran
            if not subscription.grant.expire_at_unix_s:
                continue
            when_s = self._expiry.subscription_end_s(subscription)
            if when_s <= now_s:
                _expire(session, subscription)
            else:
                session.keepalive.upkeep_by(when_s)


def _expire(session: Session, subscription: Subscription) -> None:
    if subscription.options.server_side:
        session.end(SUBSCRIPTION_EXPIRED, f"the subscription to {subscription.channel!r} was not refreshed in time")
    else:
        session.unsubscribe_with_push(subscription, UNSUBSCRIBED_EXPIRED)
