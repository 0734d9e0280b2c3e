"""When connections and subscriptions expire, and how long that takes from now."""

from __future__ import annotations

from typing import Final

from msgspec import structs

from beaconfire.base.clock import Clock
from beaconfire.delivery.subscription import Subscription
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.session.keepalive import NEVER
from beaconfire.session.options import ClientOptions
from beaconfire.session.session import Session

TTL_MAX_S: Final = 365 * 86400
"""The largest time to live that clients are told, one year, because SDKs set timers of this length."""


class Expiry:
    """Times to live for replies, and deadlines for the keepalive of a session."""

    def __init__(self, options: ClientOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock

    def is_over(self, expire_at_unix_s: float) -> bool:
        """Whether this expiry is in the past. 0 never is."""
        return bool(expire_at_unix_s) and expire_at_unix_s <= self._clock.unix_s()

    def connection_ttl_s(self, identity: Identity) -> int:
        """Whole seconds until the client must refresh its connection. 0 if the client does not refresh."""
        if not identity.client_refresh or self._options.insecure:
            return 0
        return self.ttl_s(identity.expire_at_unix_s)

    def subscription_ttl_s(self, grant: SubscriptionGrant) -> int:
        """Whole seconds until the subscription expires. 0 if it does not expire."""
        return self.ttl_s(grant.expire_at_unix_s)

    def ttl_s(self, expire_at_unix_s: float) -> int:
        """Whole seconds until this expiry, at least 1. 0 if it is 0, which is never."""
        if not expire_at_unix_s:
            return 0
        return max(1, min(int(expire_at_unix_s - self._clock.unix_s()), TTL_MAX_S))

    def watch_connection(self, session: Session) -> None:
        """Sets the deadline of the session's connection: its expiry and `client.expired_close_delay`."""
        expire_at_unix_s = session.identity.expire_at_unix_s
        if not expire_at_unix_s or self._options.insecure:
            session.keepalive.expire_at(NEVER)
        else:
            session.keepalive.expire_at(self._monotonic_s(expire_at_unix_s) + self._options.expired_close_delay)

    def set_connection_expiry(self, session: Session, when_unix_s: float) -> None:
        """Changes when a connection expires, at the request of the server API. 0 is never."""
        session.identity = structs.replace(session.identity, expire_at_unix_s=when_unix_s)
        self.watch_connection(session)

    def subscription_end_s(self, subscription: Subscription) -> float:
        """The monotonic time when a subscription ends: its expiry and `client.expired_sub_close_delay`."""
        return self._monotonic_s(subscription.grant.expire_at_unix_s) + self._options.expired_sub_close_delay

    def watch_subscription(self, session: Session, subscription: Subscription) -> None:
        """Sets the deadline of a subscription, if it expires."""
        if subscription.grant.expire_at_unix_s:
            session.keepalive.upkeep_by(self.subscription_end_s(subscription))

    def _monotonic_s(self, unix_s: float) -> float:
        return self._clock.now_s() + unix_s - self._clock.unix_s()
