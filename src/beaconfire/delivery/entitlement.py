"""Which items of a batch a subscription is entitled to, decided item by item.

That is necessary for excluded clients, joins and leaves, subscriptions that are catching up or that were added while
the items were pending, and marks of gaps. In all other cases a subscription gets the whole batch.
"""

from __future__ import annotations

from beaconfire.delivery.batch import Batch
from beaconfire.delivery.item import GapMark, Item
from beaconfire.delivery.subscription import ANY, Gap, Subscription, SubscriptionPhase
from beaconfire.model.pushes import PublicationPush


def takes_whole(batch: Batch, subscription: Subscription) -> bool:
    """Whether the subscription is entitled to every item. If so, its position moves to the end of the batch.

    The hub decides the same inline for subscriptions that get shared frames.
    """
    if subscription.number > batch.whole_max:
        return False
    if subscription.seen == ANY:
        return True
    if subscription.seen == batch.previous and subscription.epoch == batch.epoch:
        subscription.seen = batch.last
        return True
    return False


def take_items(batch: Batch, subscription: Subscription, hold_limit_bytes: int) -> tuple[int, ...]:
    """The indexes of the items to deliver now. Moves the position of a live subscription, and holds publications for
    one that is catching up.

    `hold_limit_bytes` bounds what the subscription holds. Raises `Gap` if publications are missing. Nothing of the
    batch may be delivered then.
    """
    return tuple(
        index
        for index, item in enumerate(batch.items)
        if item.number_max >= subscription.number and _takes(item, subscription, hold_limit_bytes)
    )


def _takes(item: Item, subscription: Subscription, hold_limit_bytes: int) -> bool:
    push = item.push
    is_live = subscription.phase is SubscriptionPhase.LIVE
    if isinstance(push, PublicationPush):
        wanted = subscription.client not in item.exclude
        if not is_live:
            subscription.hold(item, wanted, hold_limit_bytes)
            return False
        if item.offset and subscription.seen != ANY:
            return subscription.advance(item) and wanted
        return wanted
    if isinstance(push, GapMark):
        if subscription.options.positioned and not _is_kept(push, subscription):
            raise Gap(push.reason)
        return False
    return (is_live or subscription.replied) and subscription.options.receives_join_leave


def _is_kept(mark: GapMark, subscription: Subscription) -> bool:
    """Whether the subscription is live, or its recovery in pieces goes on, at a position from which nothing is
    missing."""
    kept, reached = mark.kept, subscription.reached
    offset = subscription.seen if reached is None else reached.offset
    return kept is not None and subscription.epoch == kept.epoch and offset >= kept.offset
