"""This node's table of subscriptions, and fan-out: one publication to every local subscriber.

Theory of operation. A publication is not sent when it arrives: it joins its channel's batch, and on the next turn of
the event loop the hub hands every batch to the outboxes of the channel's subscribers. A batch is encoded and framed
once per wire, however many sessions share it, so the cost of one more subscriber is a comparison and an append.

If one channel alone has something to say in a turn and is not too large, its frames need not wait in outboxes for
the flusher: they are aimed at the sockets of all whose outbox is empty, and fired when the walk is over. That saves
a second walk over objects that are cold again by then, a good twentieth of a delivery.

The common case is a batch whose offsets rise by one and that everybody gets whole (`uniform`). Anything else (an
excluded client, joins that only some want to hear, a subscriber still catching up, a hole) is selected item by item,
and equal selections still share one frame. Subscribers who get something of their own, by a filter, as patches or
less often, are kept and walked apart, so that they cost the others nothing. What they get has to be worked out for
each, so their walk gives the event loop back after a few milliseconds and goes on in later turns (see `room.Walk`).
Until it is over the channel's next batch waits. Where too much waits, the walk is finished at once instead: publishers
must not get ahead of it without end.

Invariants: nothing here awaits or calls out while a table is walked. Joining and leaving cost the same whatever the
number of subscribers, or one client that comes and goes could keep the node busy. A channel is in the table exactly
while it has subscribers. Per channel, subscribers get items in the order in which they were given to the hub. A
subscription added now gets nothing that was published before.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from beaconfire.base.errors import PayloadError
from beaconfire.base.timers import Timers
from beaconfire.delivery.batch import Batch, Item, Newest
from beaconfire.delivery.channel import LocalChannel, Walk
from beaconfire.delivery.conflation import Conflation, DeliverySchedule
from beaconfire.delivery.outbox import SLICE_S, Flusher, WriteBatch
from beaconfire.delivery.patches import Patches
from beaconfire.delivery.subscription import (
    ANY,
    Gap,
    Subscription,
    SubscriptionPhase,
)
from beaconfire.model.events import BatchFannedOut, EventSink, InternalError
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import JoinPush, LeavePush, PublicationPush

DIRECT_MAX = 1024
"""Subscribers of a channel that is written on the spot: some 7 ms of writing. Larger ones go out in slices."""

BACKLOG_MAX = 256
"""Items of a channel that may wait for its walk to end. Beyond it the walk is finished in one piece, which slows down
the publishers, because nothing is read from them meanwhile."""


class HubStatistics(Struct, frozen=True):
    """`delivered_total` counts messages put into outboxes by fan-out, `patches_total` those that are patches,
    `filtered_total` what filters kept from a subscriber, `conflated_total` what was left out for something newer."""

    channels: int
    subscriptions: int
    delivered_total: int
    patches_total: int
    filtered_total: int
    conflated_total: int


class Hub:
    """Who is in which channel here, and the way to reach them."""

    def __init__(
        self,
        schedule: Callable[[Callable[[], None]], object],
        timers: Timers,
        events: EventSink,
        hold_limit_bytes: int,
        flusher: Flusher,
        patches: Patches,
    ) -> None:
        """`schedule` runs a callable on the next turn of the event loop. `hold_limit_bytes` bounds what one
        subscription keeps while it catches up."""
        self._schedule = schedule
        self._now_s = timers.clock.now_s
        self._events = events
        self._hold_limit_bytes = hold_limit_bytes
        self._flusher = flusher
        self._patches = patches
        self._delivery_schedule: DeliverySchedule[Subscription] = DeliverySchedule(timers, schedule, self._pay_due)
        self._turn_s = 0.0
        """The time of the turn at hand. Who is told something in the same turn is due together again."""
        self._channels: dict[str, LocalChannel] = {}
        self._dirty: list[str] = []
        self._walking: deque[tuple[str, LocalChannel]] = deque()
        """Rooms with a walk that is under way, and their channels."""
        self.slice_s = SLICE_S
        """How long walks over tailored subscribers take at most in one turn, all of them together."""
        self._scheduled = False
        self._delivered_total = 0
        self._patches_total = 0
        self._filtered_total = 0
        self._conflated_total = 0
        self._subscriptions = 0

    # Membership

    def add(self, subscription: Subscription) -> None:
        """Adds a subscription in whatever phase. What is pending was published before: it is for the others."""
        local = self._channels.get(subscription.channel)
        if local is None:
            local = self._channels[subscription.channel] = LocalChannel(subscription.namespace.name)
        subscription.skip = len(local.pending)
        assert local.find(subscription.client) is None, "a session is in a channel once"
        local.add(subscription)
        self._subscriptions += 1

    def remove(self, subscription: Subscription) -> bool:
        """Takes it out and ends it; it still gets what is pending. True if the channel is now empty. Idempotent."""
        local = self._channels.get(subscription.channel)
        if local is None or local.find(subscription.client) is not subscription:
            return False
        self._deliver_rest(local, subscription)
        subscription.end()
        self._strike(subscription)
        local.remove(subscription)
        self._subscriptions -= 1
        if len(local):
            return False
        del self._channels[subscription.channel]
        return True

    def _deliver_rest(self, local: LocalChannel, subscription: Subscription) -> None:
        """What was published while it was a member and has not reached it yet, for one who is leaving."""
        unreached = local.walk is not None and local.walk.waiting.pop(subscription.client, None) is not None
        if subscription.phase is not SubscriptionPhase.LIVE or not (unreached or local.pending):
            return
        self._turn_s = self._now_s()
        try:
            if unreached:
                assert local.walk is not None, "it was waiting for it"
                self._deliver_selected(local.walk.batch, subscription)
            if local.pending:
                self._deliver_selected(Batch(local.pending), subscription)
        except (Gap, PayloadError):
            pass  # it is leaving: nobody is left to be told

    def has_subscribers(self, channel: str) -> bool:
        return channel in self._channels

    def count(self, channel: str) -> int:
        local = self._channels.get(channel)
        return len(local) if local is not None else 0

    def channels(self) -> Iterator[tuple[str, int]]:
        """Every channel with its number of subscribers here."""
        for channel, local in self._channels.items():
            yield channel, len(local)

    def subscribers(self, channel: str) -> list[Subscription]:
        local = self._channels.get(channel)
        return list(local.members()) if local is not None else []

    def find(self, channel: str, client: str) -> Subscription | None:
        local = self._channels.get(channel)
        return local.find(client) if local is not None else None

    def statistics(self) -> HubStatistics:
        return HubStatistics(
            len(self._channels),
            self._subscriptions,
            self._delivered_total,
            self._patches_total,
            self._filtered_total,
            self._conflated_total,
        )

    # Fan-out

    def publish(
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        exclude: Sequence[str] = (),
        delta: bool = False,
    ) -> None:
        """Queues a publication for everyone in the channel but `exclude` (client ids). `delta` allows patches."""
        local = self._channels.get(channel)
        if local is not None:
            previous = local.take(publication, epoch) if local.with_strategy is not None else None
            push = PublicationPush(channel, publication)
            self._queue(channel, local, Item(push, publication.offset, epoch, exclude, delta, previous))

    def announce(self, push: JoinPush | LeavePush) -> None:
        """Queues a join or leave for those in the channel who hear them."""
        local = self._channels.get(push.channel)
        if local is not None:
            self._queue(push.channel, local, Item(push, 0, "", ()))

    def _queue(self, channel: str, local: LocalChannel, item: Item) -> None:
        if not local.pending:
            self._mark_dirty(channel)
        local.pending.append(item)

    def _mark_dirty(self, channel: str) -> None:
        self._dirty.append(channel)
        self._wake()

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._schedule(self.flush)

    def flush(self) -> None:
        """Hands every pending batch to the outboxes, unless the walk with the one before is not over yet."""
        self._scheduled = False
        dirty, self._dirty = self._dirty, []
        single_frame = len(dirty) == 1
        for channel in dirty:
            local = self._channels.get(channel)
            if local is not None and local.pending and local.walk is None:
                try:
                    self._fan_out(channel, local, single_frame and len(local) <= DIRECT_MAX)
                except Exception:  # noqa: BLE001 - a bug in one channel's codec or sink must not silence the others
                    self._events.emit(InternalError("fan-out", traceback.format_exc()))
        if self._walking:
            self._go_on()

    def _fan_out(self, channel: str, local: LocalChannel, directly: bool) -> None:
        """Reaches those who get what everybody gets, and begins the walk to the others."""
        self._turn_s = started_s = self._now_s()
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
            self._hand_out(batch, local, write_batch, gaps, undeliverable)
        finally:  # whatever breaks the walk: those it has passed stand behind these frames already
            if write_batch is not None:
                self._flusher.flush_batch(write_batch)
        spent_s = self._now_s() - started_s
        if local.walk is None:
            self._events.emit(BatchFannedOut(local.namespace, len(batch.items), len(local), spent_s))
        else:
            local.walk.spent_s = spent_s
        if gaps or undeliverable:
            self._report(gaps, undeliverable)

    def _go_on(self) -> None:
        """Lets the walks that are under way go on, in turn, for a slice of time."""
        until_s = self._now_s() + self.slice_s
        for _ in range(len(self._walking)):
            channel, local = self._walking.popleft()
            try:
                self._step(channel, local, until_s)
            except Exception:  # noqa: BLE001 - as in `flush`
                self._events.emit(InternalError("fan-out", traceback.format_exc()))
            if self._now_s() > until_s:
                break
        if self._walking:
            self._wake()

    def _step(self, channel: str, local: LocalChannel, until_s: float) -> None:
        """Lets one walk go on. A bug ends it, and the next batch may follow, as when it has reached everybody or all
        whom it had not reached have left."""
        walk = local.walk
        assert walk is not None, "it is under way"
        self._turn_s = started_s = self._now_s()
        gaps: list[tuple[Subscription, str]] = []
        undeliverable: list[Subscription] = []
        over = True
        try:
            self._hand_out_tailored(
                walk, until_s if len(local.pending) <= BACKLOG_MAX else float("inf"), gaps, undeliverable
            )
            over = not walk.waiting
        finally:
            walk.spent_s += self._now_s() - started_s
            if not over:
                self._walking.append((channel, local))
            else:
                local.walk = None
                if local.pending:
                    self._mark_dirty(channel)
        if over:
            self._events.emit(BatchFannedOut(local.namespace, len(walk.batch.items), walk.subscribers, walk.spent_s))
        self._report(gaps, undeliverable)

    @staticmethod
    def _report(gaps: Sequence[tuple[Subscription, str]], undeliverable: Sequence[Subscription]) -> None:
        """Tells the owners, who may do anything about it, when no table is walked any more."""
        for subscription, reason in gaps:
            subscription.owner.on_gap(subscription, reason)
        for subscription in undeliverable:
            subscription.owner.on_undeliverable(subscription)

    def _hand_out(
        self,
        batch: Batch,
        local: LocalChannel,
        write_batch: WriteBatch | None,
        gaps: list[tuple[Subscription, str]],
        undeliverable: list[Subscription],
    ) -> None:
        """The walk, and the hottest lines of the house: what is looked up here is looked up once per delivery."""
        first, epoch, uniform = batch.first, batch.epoch, batch.uniform
        frames, after = batch.frames, batch.last + 1
        passed = 0
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
                    passed += 1
                else:
                    self._deliver_selected(batch, subscription)
            except Gap as gap:
                subscription.end()
                gaps.append((subscription, str(gap)))
            except PayloadError:
                undeliverable.append(subscription)
        self._delivered_total += passed * len(batch.items)

    def _hand_out_tailored(
        self,
        walk: Walk,
        until_s: float,
        gaps: list[tuple[Subscription, str]],
        undeliverable: list[Subscription],
    ) -> None:
        """The same walk over those who get something of their own, to one of them at least, and on until `until_s`."""
        batch, waiting, now_s = walk.batch, walk.waiting, self._now_s
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
                    assert subscription.strategy is not None, "it is among the tailored"
                    indexes = batch.passing(subscription.strategy.tags_filter)
                    self._filtered_total += len(batch.items) - len(indexes)
                    self._give(batch, subscription, indexes)
                    if expected != ANY:
                        subscription.expected = after
                else:
                    self._deliver_selected(batch, subscription)
            except Gap as gap:
                subscription.end()
                gaps.append((subscription, str(gap)))
            except PayloadError:
                undeliverable.append(subscription)
            if now_s() > until_s:
                break

    def _deliver_selected(self, batch: Batch, subscription: Subscription) -> None:
        """The general case: decides item by item. Raises PayloadError, and Gap where the position shows a hole."""
        if subscription.phase is SubscriptionPhase.ENDED:
            return
        live = subscription.phase is SubscriptionPhase.LIVE
        indexes: list[int] = []
        skip = subscription.skip
        subscription.skip = max(0, skip - len(batch.items))  # a batch may be the beginning of what was pending
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
            self._filtered_total += wanted and not passes
        self._give(batch, subscription, tuple(indexes))

    def _give(self, batch: Batch, subscription: Subscription, indexes: tuple[int, ...]) -> None:
        """These items of a batch, if any, in the form that the subscriber wants. Raises PayloadError."""
        if not indexes:
            return
        strategy, wire = subscription.strategy, subscription.wire
        if strategy is not None and strategy.conflation is not None:
            indexes = self._owe(batch, subscription, strategy.conflation, indexes)
            if not indexes:
                return
        if strategy is None or strategy.codec is None:
            frame = batch.selection(wire, indexes)
        else:
            positioned = subscription.expected != ANY
            told = batch.chain(wire, strategy.codec, indexes, strategy.base, positioned, self._patches)
            frame, strategy.base = told.frame, told.base
            self._patches_total += told.patches
        subscription.outbox.append(frame)
        self._delivered_total += len(indexes)

    # Conflation

    def _owe(
        self, batch: Batch, subscription: Subscription, conflation: Conflation, indexes: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Has the newest publication told in its time; returns what else there is to give now. Raises PayloadError."""
        if not conflation.interval_s and conflation.owed is None and not subscription.outbox.is_behind:
            return indexes
        news, others = batch.news(indexes)
        if news is not None:
            conflation.owe(news)
            self._pay(subscription, conflation)
        return others

    def owe(self, subscription: Subscription, conflation: Conflation, news: Newest) -> None:
        """Publications for one who conflates: the newest is told now or later. Raises PayloadError."""
        self._turn_s = self._now_s()
        conflation.owe(news)
        self._pay(subscription, conflation)

    def pay(self, subscription: Subscription) -> None:
        """The connection takes something again: tells what is owed, if there is anything and it is time."""
        if subscription.strategy is not None and subscription.strategy.conflation is not None:
            self._turn_s = self._now_s()
            self._settle(subscription, subscription.strategy.conflation)

    def _pay_due(self, subscriptions: Sequence[Subscription]) -> None:
        self._turn_s = self._now_s()
        for subscription in subscriptions:
            assert subscription.strategy is not None, "it conflates"
            assert subscription.strategy.conflation is not None, "it conflates"
            subscription.strategy.conflation.is_waiting = False
            self._settle(subscription, subscription.strategy.conflation)

    def _settle(self, subscription: Subscription, conflation: Conflation) -> None:
        try:
            self._pay(subscription, conflation)
        except PayloadError:
            subscription.owner.on_undeliverable(subscription)
        except Exception:  # noqa: BLE001 - a bug with one of those that are due together must not silence the others
            self._events.emit(InternalError("conflation", traceback.format_exc()))

    def _strike(self, subscription: Subscription) -> None:
        """It has left, and nobody waits for its time."""
        conflation = subscription.strategy.conflation if subscription.strategy is not None else None
        if conflation is not None and conflation.is_waiting:
            self._delivery_schedule.remove(subscription, conflation.due_s)

    def _pay(self, subscription: Subscription, conflation: Conflation) -> None:
        if conflation.owed is None or subscription.phase is not SubscriptionPhase.LIVE or subscription.outbox.is_behind:
            return  # who is behind is paid when that is over
        if self._turn_s < conflation.due_s:
            if not conflation.is_waiting:
                conflation.is_waiting = True
                self._delivery_schedule.add(subscription, conflation.due_s)
            return
        strategy = subscription.strategy
        assert strategy is not None, "it conflates"
        item, left_out = conflation.pay(self._turn_s)
        base = item.base_for(strategy.base, subscription.expected != ANY)
        told = item.single_frame(subscription.wire, left_out, strategy.codec, base, self._patches)
        if strategy.codec is not None:
            strategy.base = item.publication
        subscription.outbox.append(told.frame)
        self._delivered_total += 1
        self._patches_total += told.patched
        self._conflated_total += left_out
