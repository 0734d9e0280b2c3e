"""What a session needs now and then without being asked."""

from __future__ import annotations

from beaconfire.delivery.subscription import Gap, Subscription, SubscriptionPhase
from beaconfire.session.operations.subscribe import expire, expiry_s
from beaconfire.session.session import Session


async def upkeep(session: Session) -> None:
    """Refreshes presence, compares positions with their streams, ends subscriptions whose time is up."""
    node = session.node
    now_s = node.clock.now_s()
    check_delay_s = float(node.client_options.channel_position_check_delay)
    check_positions = check_delay_s > 0 and now_s >= session.position_check_s
    if check_positions:
        # Jittered, so that connections made together do not ask together.
        session.position_check_s = now_s + check_delay_s * (0.8 + 0.2 * node.random())
    for subscription in list(session.subscriptions.values()):
        if not subscription.replied or subscription.phase is SubscriptionPhase.ENDED:
            continue  # not yet, or not any more, as when the session has ended meanwhile
        if subscription.grant.expire_at_unix_s:
            when_s = expiry_s(session, subscription)
            if when_s <= now_s:
                expire(session, subscription)
                continue
            session.keepalive.upkeep_by(when_s)
        await node.touch_presence(subscription)
        if subscription.options.positioned and check_delay_s and subscription.phase is SubscriptionPhase.LIVE:
            if check_positions:
                await _check_position(session, subscription)
            session.keepalive.upkeep_by(session.position_check_s)


async def _check_position(session: Session, subscription: Subscription) -> None:
    page = await session.node.history(subscription.channel, subscription.namespace, 0)
    if subscription.phase is not SubscriptionPhase.LIVE:
        return
    try:
        subscription.check(page.position)
    except Gap as gap:
        session.on_gap(subscription, str(gap))
