"""Delivery of some items of a batch to one subscription: those it is entitled to, in the form of its strategy.

`Hub` delivers whole batches itself. This module decides item by item, which is necessary for excluded clients, joins
and leaves, subscriptions that are catching up, and subscriptions with a strategy.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from beaconfire.base.errors import PayloadError
from beaconfire.base.loop import Schedule
from beaconfire.base.timers import Timers
from beaconfire.delivery.batch import Batch, Newest
from beaconfire.delivery.conflation import Conflation, DeliverySchedule
from beaconfire.delivery.patches import Patches
from beaconfire.delivery.subscription import ANY, Subscription, SubscriptionPhase
from beaconfire.model.events import EventSink, InternalError
from beaconfire.model.pushes import PublicationPush


class SelectiveDelivery:
    """Appends selected items to outboxes, at once or when a conflated subscription is due.

    `delivered_total` counts items that were appended to outboxes, `patches_total` those of them that are patches,
    `filtered_total` publications that a filter kept from a subscription, and `conflated_total` publications that were
    left out in favour of a newer one.
    """

    __slots__ = (
        "_events",
        "_hold_limit_bytes",
        "_now_s",
        "_patches",
        "_schedule",
        "conflated_total",
        "delivered_total",
        "filtered_total",
        "patches_total",
        "turn_s",
    )

    def __init__(
        self, schedule: Schedule, timers: Timers, events: EventSink, hold_limit_bytes: int, patches: Patches
    ) -> None:
        """`hold_limit_bytes` bounds what one subscription holds while it catches up."""
        self._events = events
        self._hold_limit_bytes = hold_limit_bytes
        self._patches = patches
        self._now_s = timers.clock.now_s
        self._schedule: DeliverySchedule[Subscription] = DeliverySchedule(timers, schedule, self._deliver_due)
        self.turn_s = 0.0
        """The time of the current turn. Subscriptions that are sent something in the same turn are due together."""
        self.delivered_total = 0
        self.patches_total = 0
        self.filtered_total = 0
        self.conflated_total = 0

    def deliver_selected(self, batch: Batch, subscription: Subscription) -> None:
        """Decides item by item. Raises PayloadError, and Gap if the position shows that publications are missing."""
        if subscription.phase is SubscriptionPhase.ENDED:
            return
        live = subscription.phase is SubscriptionPhase.LIVE
        indexes: list[int] = []
        skip = subscription.skip
        subscription.skip = max(0, skip - len(batch.items))  # a batch may be only the beginning of the pending items
        strategy = subscription.strategy
        passing = batch.passing(strategy.tags_filter) if strategy is not None else None
        for index in range(skip, len(batch.items)):
            item = batch.items[index]
            passes = passing is None or index in passing
            wanted = subscription.client not in item.exclude
            if not isinstance(item.push, PublicationPush):
                wanted = (live or subscription.replied) and subscription.options.receives_join_leave
            elif not live:
                subscription.hold(item.push.pub, item.epoch, wanted and passes, self._hold_limit_bytes)
                wanted = False
            elif item.offset and subscription.expected != ANY:
                wanted = subscription.advance(item.offset, item.epoch) and wanted
            if wanted and passes:
                indexes.append(index)
            self.filtered_total += wanted and not passes
        self.deliver_items(batch, subscription, tuple(indexes))

    def deliver_passing(self, batch: Batch, subscription: Subscription) -> None:
        """Delivers the items of a uniform batch that pass the filter of the subscription. Raises PayloadError."""
        assert subscription.strategy is not None, "the subscription has a strategy"
        indexes = batch.passing(subscription.strategy.tags_filter)
        self.filtered_total += len(batch.items) - len(indexes)
        self.deliver_items(batch, subscription, indexes)

    def deliver_items(self, batch: Batch, subscription: Subscription, indexes: tuple[int, ...]) -> None:
        """Delivers these items of a batch, in the form of the subscription's strategy. Raises PayloadError."""
        if not indexes:
            return
        strategy, wire = subscription.strategy, subscription.wire
        if strategy is not None and strategy.conflation is not None:
            indexes = self._conflate(batch, subscription, strategy.conflation, indexes)
            if not indexes:
                return
        if strategy is None or strategy.codec is None:
            frame = batch.selection(wire, indexes)
        else:
            positioned = subscription.expected != ANY
            patched = batch.patched(wire, strategy.codec, indexes, strategy.base, positioned, self._patches)
            frame, strategy.base = patched.frame, patched.base
            self.patches_total += patched.patches
        subscription.outbox.append(frame)
        self.delivered_total += len(indexes)

    # Conflation

    def _conflate(
        self, batch: Batch, subscription: Subscription, conflation: Conflation, indexes: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Holds the newest publication, and returns the items to deliver now. Raises PayloadError."""
        if not conflation.interval_s and conflation.held is None and not subscription.outbox.is_behind:
            return indexes
        newest, others = batch.newest(indexes)
        if newest is not None:
            conflation.hold(newest)
            self._deliver_if_due(subscription, conflation)
        return others

    def hold_newest(self, subscription: Subscription, conflation: Conflation, newest: Newest) -> None:
        """Holds a publication, and delivers it if it is due. Raises PayloadError."""
        self.turn_s = self._now_s()
        conflation.hold(newest)
        self._deliver_if_due(subscription, conflation)

    def deliver_held(self, subscription: Subscription) -> None:
        """Delivers the held publication if it is due. Call this method when the connection takes data again."""
        if subscription.strategy is not None and subscription.strategy.conflation is not None:
            self.turn_s = self._now_s()
            self._try_deliver(subscription, subscription.strategy.conflation)

    def cancel(self, subscription: Subscription) -> None:
        """Removes an ended subscription from the delivery schedule."""
        conflation = subscription.strategy.conflation if subscription.strategy is not None else None
        if conflation is not None and conflation.is_scheduled:
            self._schedule.remove(subscription, conflation.due_s)

    def _deliver_due(self, subscriptions: Sequence[Subscription]) -> None:
        self.turn_s = self._now_s()
        for subscription in subscriptions:
            assert subscription.strategy is not None, "the subscription is conflated"
            conflation = subscription.strategy.conflation
            assert conflation is not None, "the subscription is conflated"
            conflation.is_scheduled = False
            self._try_deliver(subscription, conflation)

    def _try_deliver(self, subscription: Subscription, conflation: Conflation) -> None:
        try:
            self._deliver_if_due(subscription, conflation)
        except PayloadError:
            subscription.owner.on_undeliverable(subscription)
        except Exception:  # noqa: BLE001 - a bug with one subscription must not stop the delivery to the others
            self._events.emit(InternalError("conflation", traceback.format_exc()))

    def _deliver_if_due(self, subscription: Subscription, conflation: Conflation) -> None:
        is_live = subscription.phase is SubscriptionPhase.LIVE
        if conflation.held is None or not is_live or subscription.outbox.is_behind:
            return  # `deliver_held` is called when the connection takes data again
        if self.turn_s < conflation.due_s:
            if not conflation.is_scheduled:
                conflation.is_scheduled = True
                self._schedule.add(subscription, conflation.due_s)
            return
        strategy = subscription.strategy
        assert strategy is not None, "the subscription is conflated"
        item, left_out = conflation.take(self.turn_s)
        base = item.base_for(strategy.base, subscription.expected != ANY)
        single = item.single_frame(subscription.wire, left_out, strategy.codec, base, self._patches)
        if strategy.codec is not None:
            strategy.base = item.publication
        subscription.outbox.append(single.frame)
        self.delivered_total += 1
        self.patches_total += single.is_patch
        self.conflated_total += left_out
