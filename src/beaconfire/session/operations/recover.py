"""A recovery that is too large for one reply: what the reply does not hold follows in pushes, piece by piece.

Theory of operation. The reply holds the first piece. Each further piece is read from history once the connection has
taken the piece before, so that a client costs one piece of memory however much it missed and however slowly it reads.
While a piece is on its way nothing that is stored is held for the subscription (see `Subscription.fall_behind`). When a
read reaches the top of the stream, the subscription goes live as any other.

The position of the subscription is always that of the last piece, so a client that is cut recovers from there. If
history no longer reaches back to it, the client is told of a gap. The recoveries of a session take turns, a piece each,
so that a channel in which little was missed does not wait for one in which much was.
"""

from __future__ import annotations

from beaconfire.delivery.subscription import Gap, Subscription
from beaconfire.model.position import StreamPosition
from beaconfire.session.operations.strategy import (
    conflates,
    push_held,
    push_missed,
    select,
)
from beaconfire.session.recovery import read_latest, read_on
from beaconfire.session.reply_budget import ReplyBudget, push_size
from beaconfire.session.session import Session


def catch_up_later(session: Session, subscription: Subscription) -> None:
    """Has the recovery of a subscription that is behind go on, in turn with the other recoveries of the session."""
    if session.recoveries is not None:
        session.recoveries[subscription.channel] = subscription
        return
    session.recoveries = {subscription.channel: subscription}
    session.node.background.start(_work(session, session.recoveries))


async def _work(session: Session, recoveries: dict[str, Subscription]) -> None:
    try:
        while recoveries:
            subscription = recoveries.pop(next(iter(recoveries)))
            await _go_on(session, subscription)
            if subscription.reached is not None:
                recoveries[subscription.channel] = subscription
    finally:
        session.recoveries = None


async def _go_on(session: Session, subscription: Subscription) -> None:
    """Sends the next piece. Whatever fails, the subscription has ended then, and the client must recover anew."""
    try:
        await session.node.turn()
        await session.wait_until_writable()
        if subscription.reached is not None:
            await _send_piece(session, subscription, subscription.reached)
    except Gap as gap:
        _give_up(session, subscription, str(gap))
    except Exception as error:  # noqa: BLE001 - reported; one recovery's failure must not stop those behind it
        session.node.report("recovery", error)
        _give_up(session, subscription, "history could not be read")


async def _send_piece(session: Session, subscription: Subscription, since: StreamPosition) -> None:
    """Reads and sends what fits after `since`. Raises Gap where history does not reach back to it."""
    node, channel, namespace = session.node, subscription.channel, subscription.namespace
    options = node.client_options
    subscription.hold_again()
    if namespace.cache_mode:
        page = await node.history(channel, namespace, 1, reverse=True)
    else:
        page = await node.history(channel, namespace, options.recovery_max_publication_limit, since)
    if subscription.reached != since:
        return  # it has ended meanwhile
    piece = read_latest(since, page) if namespace.cache_mode else read_on(since, page)
    if not conflates(subscription):  # else the client is told one of them
        piece = ReplyBudget(options.reply_size_limit, push_size(channel)).take(piece)
    end = piece[-1].offset if piece else since.offset
    selected = select(session, subscription, piece)
    if end < page.position.offset and not namespace.cache_mode:
        subscription.fall_behind(StreamPosition(end, since.epoch))
        push_missed(session, subscription, selected)
    else:
        held = subscription.go_live(page.position)
        push_missed(session, subscription, selected)
        push_held(session, subscription, held)
        watch_position(session, subscription)


def watch_position(session: Session, subscription: Subscription) -> None:
    """From now on positions are compared with their streams, if they are not already."""
    delay_s = session.node.client_options.channel_position_check_delay
    if not subscription.options.positioned or not delay_s:
        return
    now_s = session.node.clock.now_s()
    if session.position_check_s <= now_s:
        session.position_check_s = now_s + delay_s
    session.keepalive.upkeep_by(session.position_check_s)


def _give_up(session: Session, subscription: Subscription, reason: str) -> None:
    if subscription.is_catching_up:
        subscription.end()
        session.on_gap(subscription, reason)
