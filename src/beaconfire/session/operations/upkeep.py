"""Periodic work of a session: presence, positions and expired subscriptions."""

from __future__ import annotations

from collections.abc import Callable

from beaconfire.base.clock import Clock
from beaconfire.base.errors import SUBSCRIPTION_EXPIRED, UNSUBSCRIBED_EXPIRED
from beaconfire.channels.service import ChannelService
from beaconfire.delivery.subscription import Gap, Subscription, SubscriptionPhase
from beaconfire.session.membership import Memberships
from beaconfire.session.operations.expiry import Expiry
from beaconfire.session.options import ClientOptions
from beaconfire.session.session import Session


class Upkeep:
    """Runs when the keepalive of a session says so, at most once at a time for a session."""

    def __init__(
        self,
        channels: ChannelService,
        memberships: Memberships,
        expiry: Expiry,
        options: ClientOptions,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        """`random` returns numbers in [0, 1)."""
        self._channels = channels
        self._memberships = memberships
        self._expiry = expiry
        self._check_delay_s = float(options.channel_position_check_delay)
        self._clock = clock
        self._random = random

    async def run(self, session: Session) -> None:
        """Refreshes presence, compares positions with their streams, and ends expired subscriptions."""
        now_s = self._clock.now_s()
        check_positions = self._check_delay_s > 0 and now_s >= session.position_check_s
        if check_positions:
            # With jitter, so that sessions that connected together do not read from the engine together.
            session.position_check_s = now_s + self._check_delay_s * (0.8 + 0.2 * self._random())
        for subscription in list(session.subscriptions.values()):
            if not subscription.replied or subscription.phase is SubscriptionPhase.ENDED:
                continue  # the subscription is being made, or it ended while this method was suspended
            if subscription.grant.expire_at_unix_s:
                when_s = self._expiry.subscription_end_s(subscription)
                if when_s <= now_s:
                    _expire(session, subscription)
                    continue
                session.keepalive.upkeep_by(when_s)
            await self._memberships.update_presence(subscription)
            is_live = subscription.phase is SubscriptionPhase.LIVE
            if subscription.options.positioned and self._check_delay_s and is_live:
                if check_positions:
                    await self._check_position(session, subscription)
                session.keepalive.upkeep_by(session.position_check_s)

    def watch_position(self, session: Session, subscription: Subscription) -> None:
        """Makes upkeep compare the position of this subscription with its stream from now on."""
        if not subscription.options.positioned or not self._check_delay_s:
            return
        now_s = self._clock.now_s()
        if session.position_check_s <= now_s:
            session.position_check_s = now_s + self._check_delay_s
        session.keepalive.upkeep_by(session.position_check_s)

    async def _check_position(self, session: Session, subscription: Subscription) -> None:
        page = await self._channels.history(subscription.channel, subscription.namespace, 0)
        if subscription.phase is not SubscriptionPhase.LIVE:
            return
        try:
            subscription.check(page.position)
        except Gap as gap:
            session.on_gap(subscription, str(gap))


def _expire(session: Session, subscription: Subscription) -> None:
    if subscription.options.server_side:
        session.end(SUBSCRIPTION_EXPIRED, f"the subscription to {subscription.channel!r} was not refreshed in time")
    else:
        session.unsubscribe_with_push(subscription, UNSUBSCRIBED_EXPIRED)
