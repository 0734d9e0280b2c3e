"""Only the newest publication, for subscriptions to a state that changes faster than the client needs.

A conflated subscription gets at most a given number of updates per second, and only the newest publication while its
connection takes nothing. At most one publication is held for it: a newer publication replaces the held one. When the
held publication is delivered, it says how many publications were left out before it. The newest publication is never
left out, so a client that listens long enough has the latest state.

Publications that are left out count as delivered when gaps are detected, because the client did not want them. But a
client that comes back with its position recovers from the last publication that was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from beaconfire.delivery.batch import Batch
from beaconfire.delivery.item import Item
from beaconfire.delivery.strategy import DeliveryStrategy, Layer, StrategyContext, Target
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush

RATE_MIN: Final = 0.01
RATE_MAX: Final = 1000.0
"""The range of updates per second that a subscription may ask for. At the minimum, an update may take 100 s."""

NEVER_S: Final = -1.0
"""No time at which a publication was ever due."""


class Newest(NamedTuple):
    """Some publications: the newest of them, and how many they are.

    `since` is the offset before the first publication that has an offset, None if none has.
    """

    item: Item
    size: int
    since: int | None


class HeldUpdate(NamedTuple):
    """The newest publication, and how many publications were left out since the last one that was sent."""

    item: Item
    left_out: int


class Conflated(Layer):
    """Holds the newest publication until it is due and the connection is writable. Joins and leaves are not held."""

    __slots__ = ("_context", "_interval_s", "_left_out", "_scheduled_s", "_since", "due_s", "held")

    def __init__(self, inner: DeliveryStrategy, max_rate: float, context: StrategyContext) -> None:
        """`max_rate` is in updates per second. With 0, only a busy connection delays updates."""
        super().__init__(inner)
        self._context = context
        self._interval_s = 1 / max_rate if max_rate else 0.0
        self.due_s = 0.0
        """The monotonic time before which nothing is sent."""
        self.held: Item | None = None
        self._since: int | None = None
        self._left_out = 0
        self._scheduled_s = NEVER_S
        """The last due time for which the subscription was put into the schedule."""

    @property
    def is_conflated(self) -> bool:
        return True

    @property
    def held_since(self) -> int | None:
        return self._since

    def deliver(self, batch: Batch, indexes: tuple[int, ...], target: Target) -> int:
        if not self._interval_s and self.held is None and not target.outbox.is_behind:
            return self.inner.deliver(batch, indexes, target)
        newest, others = split_newest(batch, indexes)
        delivered = 0
        if newest is not None:
            self.hold(newest)
            delivered = self._deliver_if_due(target)
        if others:
            delivered += self.inner.deliver(batch, others, target)
        return delivered

    def select(self, publications: Sequence[Publication]) -> Sequence[Publication]:
        """Only the newest publication, with the number of those left out."""
        if publications:
            self.sent(self._context.now_s())
            left_out = len(publications) - 1
            publications = [replace(publications[-1], conflated=left_out)] if left_out else publications
        return self.inner.select(publications)

    def resume(self, target: Target) -> int:
        return self._deliver_if_due(target)

    def end(self, target: Target) -> None:
        self.held = self._since = None
        if self._scheduled_s != NEVER_S:
            self._context.schedule.remove(target, self._scheduled_s)
            self._scheduled_s = NEVER_S
        self.inner.end(target)

    def hold(self, newest: Newest) -> None:
        """Holds the newest publication instead of the one before."""
        if self.held is not None:
            self._left_out += 1
        self._left_out += newest.size - 1
        if self._since is None:
            self._since = newest.since
        self.held = newest.item

    def take(self, now_s: float) -> HeldUpdate:
        """Removes the held publication, which the caller sends now. The next one is due after the interval."""
        assert self.held is not None, "a publication is held"
        update = HeldUpdate(self.held, self._left_out)
        self.held = self._since = None
        self._left_out = 0
        self.sent(now_s)
        return update

    def sent(self, now_s: float) -> None:
        """Publications reach the client. The next one is due after the interval."""
        self.due_s = now_s + self._interval_s

    def _deliver_if_due(self, target: Target) -> int:
        if self.held is None or target.outbox.is_behind:
            return 0  # `resume` is called when the connection takes data again
        now_s = self._context.turn_s
        if now_s < self.due_s:
            if self._scheduled_s != self.due_s:
                self._scheduled_s = self.due_s
                self._context.schedule.add(target, self.due_s)
            return 0
        update = self.take(now_s)
        delivered = self.inner.deliver_update(update.item, update.left_out, target)
        self._context.conflated_total += update.left_out
        return delivered


def split_newest(batch: Batch, indexes: tuple[int, ...]) -> tuple[Newest | None, tuple[int, ...]]:
    """The newest publication among these items, and the indexes of the joins and leaves. Made once per selection."""
    key = (Conflated, indexes)
    split: tuple[Newest | None, tuple[int, ...]] | None = batch.shared.get(key)
    if split is None:
        items = batch.items
        publications = [items[index] for index in indexes if isinstance(items[index].push, PublicationPush)]
        others = tuple(index for index in indexes if not isinstance(items[index].push, PublicationPush))
        since = next((item.previous for item in publications if item.offset), None)
        newest = Newest(publications[-1], len(publications), since) if publications else None
        split = batch.shared[key] = newest, others
    return split
