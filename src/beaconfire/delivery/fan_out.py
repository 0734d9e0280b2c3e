"""Fan-out: hands the pending items of channels to the outboxes of their subscribers, in slices of a few milliseconds.

Theory of operation. On each turn of the event loop with pending items, `flush` starts a *walk* over the subscriptions
of each channel that has any: the pending items become a batch, which is encoded and framed once per wire. In the common
case one more subscriber costs a comparison and an append. The clock is read after a chunk of such subscriptions, and
after each subscription that needs more work: a delivery strategy, or a selection of items. When the slice is over, the
remaining walks continue in the next turns (see `channel.Walk`). Until a walk is over, the next batch of its channel
waits. If too many items wait, the walk is finished at once: publishers must not get ahead of it without bound.

If only one channel has new items in a turn and the channel is not too large, its frames need not wait in outboxes for
the flusher. They are added to a write batch for every session whose outbox is empty, and the write batch is written
after the walk over the subscribers. That saves a second walk over objects that have left the CPU cache by then, about a
twentieth of the cost of a delivery.

Gaps and undeliverable publications are reported to the owners of subscriptions between two chunks. These callbacks may
call the hub: no loop runs over a table then.
"""

from __future__ import annotations

import math
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, TypeAlias

from beaconfire.base.errors import PayloadError
from beaconfire.base.loop import SLICE_S, Schedule
from beaconfire.delivery.batch import Batch
from beaconfire.delivery.channel import LocalChannel, Walk
from beaconfire.delivery.entitlement import take_items, takes_whole
from beaconfire.delivery.item import Item
from beaconfire.delivery.outbox import Flusher, WriteBatch
from beaconfire.delivery.strategy import StrategyContext
from beaconfire.delivery.subscription import ANY, Gap, Subscription, SubscriptionPhase
from beaconfire.model.events import BatchFannedOut, EventSink, InternalError

DIRECT_SUBSCRIBERS_MAX: Final = 1024
"""Subscribers of a channel that is written in one piece: some 7 ms. Larger channels are written in slices."""

PENDING_ITEMS_MAX: Final = 256
"""Items of a channel that may wait for its walk to end. If more items wait, the walk is finished in one piece. That
slows down publishers, because the node reads nothing meanwhile."""

CHUNK: Final = 1024
"""Subscriptions that get a shared frame between two readings of the clock: some 0.3 ms. At least
`DIRECT_SUBSCRIBERS_MAX`, so that one write batch is enough for a channel that is written in one piece."""

REPORTS_MAX: Final = 32
"""Reports to owners between two readings of the clock. A report ends a subscription or a session: some 20 µs."""

Report: TypeAlias = tuple[Subscription, str | None]
"""What the owner of a subscription is told: the reason of a gap, or None if a publication cannot be encoded."""


class FanOut:
    """The channels with pending items, and the walks that are not over."""

    def __init__(
        self,
        schedule: Schedule,
        events: EventSink,
        hold_limit_bytes: int,
        flusher: Flusher,
        context: StrategyContext,
    ) -> None:
        """`hold_limit_bytes` bounds what one subscription holds while it catches up."""
        self._schedule = schedule
        self._events = events
        self._hold_limit_bytes = hold_limit_bytes
        self._flusher = flusher
        self._context = context
        self._now_s = context.now_s
        self._pending: deque[LocalChannel] = deque()
        """Channels with pending items and without a walk."""
        self._walking: deque[LocalChannel] = deque()
        """Channels with a walk that is not over."""
        self._scheduled = False
        self.slice_s = SLICE_S
        """How long all walks together take in one turn at most."""
        self.chunk = CHUNK
        self.delivered_total = 0
        """Items that were appended to outboxes."""

    @property
    def is_interrupted(self) -> bool:
        """A walk is not over."""
        return bool(self._walking)

    def add(self, local: LocalChannel, item: Item) -> None:
        """Adds an item to the channel's pending items."""
        if not local.pending and local.walk is None:
            self._pending.append(local)
            self._wake()
        local.pending.append(item)

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._schedule(self.flush)

    def deliver_rest(self, local: LocalChannel, subscription: Subscription) -> None:
        """Delivers to a subscription that leaves what was published before and has not reached it yet."""
        if subscription.phase is not SubscriptionPhase.LIVE:
            return
        self._context.turn_s = self._now_s()
        try:
            if local.walk is not None and local.walk.is_to_visit(subscription):
                self._deliver_to(local.walk.batch, subscription)
            if local.pending:
                self._deliver_to(Batch(local.pending), subscription)
        except (Gap, PayloadError):
            pass  # the subscription ends, so the client need not know

    def flush(self) -> None:
        """Starts the walks over the pending items, and continues those that are not over, for one slice of time.

        Channels with new items come first, for one chunk each, so that a long walk in one channel does not delay the
        others.
        """
        self._scheduled = False
        now_s = self._context.turn_s = self._now_s()
        until_s = now_s + self.slice_s
        continued = len(self._walking)
        is_only = len(self._pending) == 1
        while self._pending:
            local = self._pending.popleft()
            if local.subscriptions:
                now_s = self._start(local, now_s, until_s, is_only)
                if now_s > until_s:
                    break
        if now_s <= until_s:
            continued = len(self._walking)
        for _ in range(continued):
            now_s = self._continue(self._walking.popleft(), now_s, until_s)
            if now_s > until_s:
                break
        if self._pending or self._walking:
            self._wake()

    def _start(self, local: LocalChannel, started_s: float, until_s: float, is_only: bool) -> float:
        """Makes a batch, and delivers it to one chunk of subscriptions: usually all of them. Returns the time."""
        count = len(local.subscriptions)
        write_batch = WriteBatch() if is_only and count <= DIRECT_SUBSCRIBERS_MAX else None
        reports: list[Report] = []
        try:
            batch = local.take_batch()
            if local.strategies:
                self._context.patches.refill()
            left = iter(local.subscriptions.values())
            chunk = left if count <= self.chunk else islice(left, self.chunk)
            try:
                visited = self._visit(batch, chunk, until_s, write_batch, reports)
            finally:  # after any exception: the positions of subscriptions before it have advanced past these frames
                if write_batch is not None:
                    self._flusher.flush_batch(write_batch)
        except Exception:  # noqa: BLE001 - reported; a bug in one channel must not stop the other channels
            self._fail(local)
            now_s = self._now_s()
        else:
            now_s = self._now_s()
            if rest := list(left):
                local.walk = Walk(batch, rest, visited, count, now_s - started_s)
                self._walking.append(local)
            else:
                self._end(local, batch, count, now_s - started_s)
        if reports:
            self._send(reports)
            now_s = self._now_s()
        return now_s

    def _continue(self, local: LocalChannel, started_s: float, until_s: float) -> float:
        """Continues a walk by at least one subscription, and by more of them until `until_s`. Returns the time."""
        walk = local.walk
        assert walk is not None, "the walk is not over"
        if len(local.pending) > PENDING_ITEMS_MAX:
            until_s = math.inf
        now_s = started_s
        while walk.visited != walk.last:
            reports: list[Report] = []
            try:
                walk.visited = self._visit(walk.batch, islice(walk.left, self.chunk), until_s, None, reports)
            except Exception:  # noqa: BLE001 - as in `_start`
                self._fail(local)
                self._send(reports)
                return self._now_s()
            self._send(reports)
            now_s = self._now_s()
            if now_s > until_s:
                break
        walk.spent_s += now_s - started_s
        if walk.visited != walk.last:
            self._walking.append(local)
        else:
            self._end(local, walk.batch, walk.subscribers, walk.spent_s)
        return now_s

    def _end(self, local: LocalChannel, batch: Batch, subscribers: int, spent_s: float) -> None:
        """Every subscription has been visited. The next batch of the channel may follow."""
        local.walk = None
        if local.pending:
            self._pending.append(local)
        self._events.emit(BatchFannedOut(local.namespace, len(batch.items), subscribers, spent_s))

    def _fail(self, local: LocalChannel) -> None:
        """A bug has ended the walk. The next batch of the channel may follow."""
        local.walk = None
        if local.pending:
            self._pending.append(local)
        self._events.emit(InternalError("fan-out", traceback.format_exc()))

    def _visit(
        self,
        batch: Batch,
        subscriptions: Iterator[Subscription],
        until_s: float,
        write_batch: WriteBatch | None,
        reports: list[Report],
    ) -> int:
        """Delivers the batch to some subscriptions, at least one. Returns the number of the last one.

        This loop is the hottest code: it runs once per delivery.
        """
        frames, epoch, previous, last = batch.frames, batch.epoch, batch.previous, batch.last
        whole_max = batch.whole_max
        whole = 0
        for subscription in subscriptions:
            try:
                seen = subscription.seen
                if subscription.whole_number <= whole_max and (
                    seen == ANY or (seen == previous and subscription.epoch == epoch)
                ):
                    wire = subscription.wire
                    frame = frames.get(wire) or batch.frame(wire)
                    if write_batch is None:
                        subscription.outbox.append(frame)
                    else:
                        subscription.outbox.add_to(frame, write_batch)
                    if seen != ANY:
                        subscription.seen = last
                    whole += 1
                else:
                    self._deliver_to(batch, subscription)
                    if self._now_s() > until_s:
                        break
            except Gap as gap:
                if subscription.is_catching_up:
                    subscription.mark_gap()
                else:
                    subscription.end()
                reports.append((subscription, str(gap)))
                if len(reports) == REPORTS_MAX:
                    break
            except PayloadError:
                reports.append((subscription, None))
                if len(reports) == REPORTS_MAX:
                    break
        self.delivered_total += whole * len(batch.items)
        return subscription.number

    def _deliver_to(self, batch: Batch, subscription: Subscription) -> None:
        """Delivers the items that the subscription is entitled to, in its strategy. Raises PayloadError and Gap."""
        if subscription.phase is SubscriptionPhase.ENDED:
            return
        if takes_whole(batch, subscription):
            indexes = batch.everything
        else:
            indexes = take_items(batch, subscription, self._hold_limit_bytes)
            if len(indexes) == len(batch.items):
                indexes = batch.everything
        if indexes:
            self.delivered_total += subscription.strategy.deliver(batch, indexes, subscription)

    def _send(self, reports: Sequence[Report]) -> None:
        """Calls the owners of the subscriptions, which may call the hub again."""
        for subscription, reason in reports:
            try:
                if reason is None:
                    subscription.owner.on_undeliverable(subscription)
                else:
                    subscription.owner.on_gap(subscription, reason)
            except Exception:  # noqa: BLE001 - reported; a bug with one subscription must not stop the reports to others
                self._events.emit(InternalError("fan-out", traceback.format_exc()))
