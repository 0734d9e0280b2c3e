"""This node's table of subscriptions, and fan-out: one publication to every local subscriber.

Theory of operation. A publication is not sent when it arrives. It joins the pending batch of its channel. On the next
turn of the event loop the hub hands every pending batch to the outboxes of the channel's subscribers. A batch is
encoded and framed once per wire, however many sessions share the wire, so one more subscriber costs a comparison and an
append.

If only one channel has a pending batch in a turn and the channel is not too large, its frames need not wait in outboxes
for the flusher. The hub adds them to a write batch for every session whose outbox is empty, and writes this batch after
the walk over the subscribers. That saves a second walk over objects that have left the CPU cache by then, about a
twentieth of the cost of a delivery.

In the common case, the offsets of a batch rise by one and every subscriber gets the whole batch: the batch is
*uniform*. In any other case (an excluded client, joins that not every subscriber receives, a subscriber that is
catching up, a missing offset) items are selected one by one, and equal selections still share one frame. Subscriptions
with a delivery strategy are kept in a table of their own, so that they cost the others nothing. Their frames are
computed for each subscription, so the walk over them yields to the event loop after a few milliseconds and continues in
later turns (see `channel.Walk`). Until the walk is over, the next batch of the channel waits. If too many items wait,
the walk is finished at once: publishers must not get ahead of it without bound.

Invariants: the hub never awaits, and calls no code outside `delivery` while it walks a table. Subscribing and
unsubscribing cost the same for any number of subscribers; otherwise one client could keep the node busy by repeating
them. A channel is in the table exactly while it has subscribers. In each channel, subscribers get items in the order in
which the hub got them. A new subscription gets nothing that was published before it was added.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Iterator, Sequence

from msgspec import Struct

from beaconfire.base.errors import PayloadError
from beaconfire.base.loop import SLICE_S, Schedule
from beaconfire.base.timers import Timers
from beaconfire.delivery.batch import Batch, Item, Newest
from beaconfire.delivery.channel import LocalChannel, Walk
from beaconfire.delivery.conflation import Conflation
from beaconfire.delivery.outbox import Flusher, WriteBatch
from beaconfire.delivery.patches import Patches
from beaconfire.delivery.selective import SelectiveDelivery
from beaconfire.delivery.subscription import ANY, Gap, Subscription, SubscriptionPhase
from beaconfire.model.events import BatchFannedOut, EventSink, InternalError
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import JoinPush, LeavePush, PublicationPush

DIRECT_SUBSCRIBERS_MAX = 1024
"""Subscribers of a channel that is written in one piece: some 7 ms. Larger channels are written in slices."""

PENDING_ITEMS_MAX = 256
"""Items of a channel that may wait for its walk to end. If more items wait, the walk is finished in one piece. That
slows down publishers, because the node reads nothing meanwhile."""


class HubStatistics(Struct, frozen=True):
    """The `_total` figures are those of `SelectiveDelivery`; `delivered_total` includes all other deliveries."""

    channels: int
    subscriptions: int
    delivered_total: int
    patches_total: int
    filtered_total: int
    conflated_total: int


class Hub:
    """The local subscriptions by channel."""

    def __init__(
        self,
        schedule: Schedule,
        timers: Timers,
        events: EventSink,
        hold_limit_bytes: int,
        flusher: Flusher,
        patches: Patches,
    ) -> None:
        """`hold_limit_bytes` bounds what one subscription holds while it catches up."""
        self._schedule = schedule
        self._now_s = timers.clock.now_s
        self._events = events
        self._flusher = flusher
        self._patches = patches
        self._selective = SelectiveDelivery(schedule, timers, events, hold_limit_bytes, patches)
        self._channels: dict[str, LocalChannel] = {}
        self._pending: list[str] = []
        """Channels with a pending batch that is not handed out yet."""
        self._walking: deque[tuple[str, LocalChannel]] = deque()
        """Channels with a walk that is not over."""
        self.slice_s = SLICE_S
        """How long all walks together take in one turn at most."""
        self._scheduled = False
        self._delivered_total = 0
        self._subscriptions = 0

    # Membership

    def add(self, subscription: Subscription) -> None:
        """Adds a subscription in any phase. It does not get items that are pending already."""
        local = self._channels.get(subscription.channel)
        if local is None:
            local = self._channels[subscription.channel] = LocalChannel(subscription.namespace.name)
        subscription.skip = len(local.pending)
        assert local.find(subscription.client) is None, "a session is in a channel once"
        local.add(subscription)
        self._subscriptions += 1

    def remove(self, subscription: Subscription) -> bool:
        """Delivers pending items to the subscription, ends it and removes it.

        Returns True if the channel has no subscribers left. Idempotent.
        """
        local = self._channels.get(subscription.channel)
        if local is None or local.find(subscription.client) is not subscription:
            return False
        self._deliver_rest(local, subscription)
        subscription.end()
        self._selective.cancel(subscription)
        local.remove(subscription)
        self._subscriptions -= 1
        if len(local):
            return False
        del self._channels[subscription.channel]
        return True

    def _deliver_rest(self, local: LocalChannel, subscription: Subscription) -> None:
        """Delivers items that were published before the subscription ends and have not reached it yet."""
        unreached = local.walk is not None and local.walk.waiting.pop(subscription.client, None) is not None
        if subscription.phase is not SubscriptionPhase.LIVE or not (unreached or local.pending):
            return
        self._selective.turn_s = self._now_s()
        try:
            if unreached:
                assert local.walk is not None, "the subscription was waiting for the walk"
                self._selective.deliver_selected(local.walk.batch, subscription)
            if local.pending:
                self._selective.deliver_selected(Batch(local.pending), subscription)
        except (Gap, PayloadError):
            pass  # the subscription ends, so the client need not know

    def has_subscribers(self, channel: str) -> bool:
        return channel in self._channels

    def count(self, channel: str) -> int:
        """The number of subscriptions to the channel."""
        local = self._channels.get(channel)
        return len(local) if local is not None else 0

    def channels(self) -> Iterator[tuple[str, int]]:
        """Every channel with its number of subscriptions."""
        for channel, local in self._channels.items():
            yield channel, len(local)

    def subscribers(self, channel: str) -> list[Subscription]:
        local = self._channels.get(channel)
        return list(local.members()) if local is not None else []

    def find(self, channel: str, client: str) -> Subscription | None:
        local = self._channels.get(channel)
        return local.find(client) if local is not None else None

    def statistics(self) -> HubStatistics:
        selective = self._selective
        return HubStatistics(
            channels=len(self._channels),
            subscriptions=self._subscriptions,
            delivered_total=self._delivered_total + selective.delivered_total,
            patches_total=selective.patches_total,
            filtered_total=selective.filtered_total,
            conflated_total=selective.conflated_total,
        )

    # Conflation

    def hold_newest(self, subscription: Subscription, conflation: Conflation, newest: Newest) -> None:
        """Like `SelectiveDelivery.hold_newest`."""
        self._selective.hold_newest(subscription, conflation, newest)

    def deliver_held(self, subscription: Subscription) -> None:
        """Like `SelectiveDelivery.deliver_held`."""
        self._selective.deliver_held(subscription)

    # Fan-out

    def publish(
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        exclude: Sequence[str] = (),
        delta: bool = False,
    ) -> None:
        """Adds a publication to the channel's pending batch, for every subscriber except the client ids in `exclude`.

        `delta` allows patches.
        """
        local = self._channels.get(channel)
        if local is not None:
            previous = local.note_latest(publication, epoch) if local.with_strategy is not None else None
            push = PublicationPush(channel, publication)
            self._add_item(channel, local, Item(push, publication.offset, epoch, exclude, delta, previous))

    def announce(self, push: JoinPush | LeavePush) -> None:
        """Adds a join or leave to the channel's pending batch, for the subscribers that receive them."""
        local = self._channels.get(push.channel)
        if local is not None:
            self._add_item(push.channel, local, Item(push, 0, "", ()))

    def _add_item(self, channel: str, local: LocalChannel, item: Item) -> None:
        if not local.pending:
            self._mark_pending(channel)
        local.pending.append(item)

    def _mark_pending(self, channel: str) -> None:
        self._pending.append(channel)
        self._schedule_flush()

    def _schedule_flush(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._schedule(self.flush)

    def flush(self) -> None:
        """Hands every pending batch to the outboxes, unless the walk over the batch before is not over."""
        self._scheduled = False
        pending, self._pending = self._pending, []
        is_only = len(pending) == 1
        for channel in pending:
            local = self._channels.get(channel)
            if local is not None and local.pending and local.walk is None:
                try:
                    self._fan_out(channel, local, is_only and len(local) <= DIRECT_SUBSCRIBERS_MAX)
                except Exception:  # noqa: BLE001 - reported; a bug in one channel must not stop the other channels
                    self._events.emit(InternalError("fan-out", traceback.format_exc()))
        if self._walking:
            self._continue_walks()

    def _fan_out(self, channel: str, local: LocalChannel, directly: bool) -> None:
        """Delivers the batch to subscriptions without a strategy, and starts the walk over those with one."""
        self._selective.turn_s = started_s = self._now_s()
        if local.with_strategy is None:
            batch = Batch(local.pending)
            local.pending = []
        else:
            batch = local.begin_walk()
            self._walking.append((channel, local))
        write_batch = WriteBatch() if directly else None
        gaps: list[tuple[Subscription, str]] = []
        undeliverable: list[Subscription] = []
        try:
            self._deliver(batch, local, write_batch, gaps, undeliverable)
        finally:  # after any exception: the positions of subscriptions before it have advanced past these frames
            if write_batch is not None:
                self._flusher.flush_batch(write_batch)
        spent_s = self._now_s() - started_s
        if local.walk is None:
            self._events.emit(BatchFannedOut(local.namespace, len(batch.items), len(local), spent_s))
        else:
            local.walk.spent_s = spent_s
        if gaps or undeliverable:
            _report(gaps, undeliverable)

    def _deliver(
        self,
        batch: Batch,
        local: LocalChannel,
        write_batch: WriteBatch | None,
        gaps: list[tuple[Subscription, str]],
        undeliverable: list[Subscription],
    ) -> None:
        """Walks over the subscriptions without a strategy. This loop is the hottest code: it runs once per delivery."""
        first, epoch, uniform = batch.first, batch.epoch, batch.uniform
        frames, after = batch.frames, batch.last + 1
        whole = 0
        for subscription in local.subscriptions.values():
            try:
                expected = subscription.expected
                if (
                    uniform
                    and not subscription.skip
                    and (expected == ANY or (expected == first != 0 and subscription.epoch == epoch))
                ):
                    wire = subscription.wire
                    frame = frames.get(wire) or batch.frame(wire)
                    if write_batch is None:
                        subscription.outbox.append(frame)
                    else:
                        subscription.outbox.add_to(frame, write_batch)
                    if expected != ANY:
                        subscription.expected = after
                    whole += 1
                else:
                    self._selective.deliver_selected(batch, subscription)
            except Gap as gap:
                subscription.end()
                gaps.append((subscription, str(gap)))
            except PayloadError:
                undeliverable.append(subscription)
        self._delivered_total += whole * len(batch.items)

    # Walks over subscriptions with a strategy

    def _continue_walks(self) -> None:
        """Continues the walks in turn, for one slice of time together."""
        until_s = self._now_s() + self.slice_s
        for _ in range(len(self._walking)):
            channel, local = self._walking.popleft()
            try:
                self._continue_walk(channel, local, until_s)
            except Exception:  # noqa: BLE001 - as in `flush`
                self._events.emit(InternalError("fan-out", traceback.format_exc()))
            if self._now_s() > until_s:
                break
        if self._walking:
            self._schedule_flush()

    def _continue_walk(self, channel: str, local: LocalChannel, until_s: float) -> None:
        """Continues one walk. The walk ends when no subscription waits for it, or on a bug. Then the next batch may
        follow."""
        walk = local.walk
        assert walk is not None, "the walk is not over"
        self._selective.turn_s = started_s = self._now_s()
        gaps: list[tuple[Subscription, str]] = []
        undeliverable: list[Subscription] = []
        over = True
        try:
            deadline_s = until_s if len(local.pending) <= PENDING_ITEMS_MAX else float("inf")
            self._walk(walk, deadline_s, gaps, undeliverable)
            over = not walk.waiting
        finally:
            walk.spent_s += self._now_s() - started_s
            if not over:
                self._walking.append((channel, local))
            else:
                local.walk = None
                if local.pending:
                    self._mark_pending(channel)
        if over:
            self._events.emit(BatchFannedOut(local.namespace, len(walk.batch.items), walk.subscribers, walk.spent_s))
        _report(gaps, undeliverable)

    def _walk(
        self,
        walk: Walk,
        until_s: float,
        gaps: list[tuple[Subscription, str]],
        undeliverable: list[Subscription],
    ) -> None:
        """Delivers the batch to at least one subscription, and to more of them until `until_s`."""
        batch, waiting, now_s, selective = walk.batch, walk.waiting, self._now_s, self._selective
        first, epoch, uniform = batch.first, batch.epoch, batch.uniform
        after = batch.last + 1
        if not walk.begun:
            walk.begun = True
            self._patches.refill()
        while waiting:
            _, subscription = waiting.popitem()
            try:
                expected = subscription.expected
                if (
                    uniform
                    and not subscription.skip
                    and (expected == ANY or (expected == first != 0 and subscription.epoch == epoch))
                ):
                    selective.deliver_passing(batch, subscription)
                    if expected != ANY:
                        subscription.expected = after
                else:
                    selective.deliver_selected(batch, subscription)
            except Gap as gap:
                subscription.end()
                gaps.append((subscription, str(gap)))
            except PayloadError:
                undeliverable.append(subscription)
            if now_s() > until_s:
                break


def _report(gaps: Sequence[tuple[Subscription, str]], undeliverable: Sequence[Subscription]) -> None:
    """Calls the owners of subscriptions, which may call the hub again: no table is walked any more."""
    for subscription, reason in gaps:
        subscription.owner.on_gap(subscription, reason)
    for subscription in undeliverable:
        subscription.owner.on_undeliverable(subscription)
