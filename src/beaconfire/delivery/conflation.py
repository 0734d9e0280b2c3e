"""Only the newest publication, for subscriptions to a state that changes faster than the client needs.

A conflated subscription gets at most a given number of updates per second, and only the newest publication while its
connection takes nothing. At most one publication is held for it: a newer publication replaces the held one. When the
held publication is delivered, it says how many publications were left out before it. The newest publication is never
left out, so a client that listens long enough has the latest state.

Publications that are left out count as delivered when gaps are detected, because the client did not want them. But a
client that comes back with its position recovers from the last publication that was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, Generic, NamedTuple, TypeVar

from beaconfire.base.loop import Schedule
from beaconfire.base.timers import Timer, Timers
from beaconfire.delivery.batch import Item, Newest

RATE_MIN: Final = 0.01
RATE_MAX: Final = 1000.0
"""The range of updates per second that a subscription may ask for. At the minimum, an update may take 100 s."""

DUE_AT_ONCE_MAX: Final = 1024
"""Deliveries that are handed out in one turn of the event loop: some 3 ms of work."""

T = TypeVar("T")


class HeldUpdate(NamedTuple):
    """The newest publication, and how many publications were left out since the last one that was sent."""

    item: Item
    left_out: int


class Conflation:
    """The held publication of one subscription, and the time from which it may be sent."""

    __slots__ = ("_left_out", "due_s", "held", "interval_s", "is_scheduled", "since")

    def __init__(self, max_rate: float) -> None:
        """`max_rate` is in updates per second. With 0, only a busy connection delays updates."""
        self.interval_s = 1 / max_rate if max_rate else 0.0
        self.due_s = 0.0
        """The monotonic time before which nothing is sent."""
        self.held: Item | None = None
        self.since: int | None = None
        """The offset before the first publication that is held or left out. None if none of the stream is."""
        self.is_scheduled = False
        """The subscription is in the delivery schedule, at `due_s`."""
        self._left_out = 0

    def hold(self, newest: Newest) -> None:
        """Holds the newest publication instead of the one before."""
        if self.held is not None:
            self._left_out += 1
        self._left_out += newest.size - 1
        if self.since is None:
            self.since = newest.since
        self.held = newest.item

    def take(self, now_s: float) -> HeldUpdate:
        """Removes the held publication, which the caller sends now. The next one is due after the interval."""
        assert self.held is not None, "a publication is held"
        update = HeldUpdate(self.held, self._left_out)
        self.held = self.since = None
        self._left_out = 0
        self.sent(now_s)
        return update

    def sent(self, now_s: float) -> None:
        """Publications reached the client in a reply. The next one is due after the interval."""
        self.due_s = now_s + self.interval_s

    def end(self) -> None:
        """The subscription has ended."""
        self.held = self.since = None


class DeliverySchedule(Generic[T]):
    """When held publications are due. Subscriptions that got one in the same turn share a due time and a timer."""

    def __init__(self, timers: Timers, schedule: Schedule, deliver: Callable[[Sequence[T]], None]) -> None:
        """`deliver` gets the entries that are due, at most `DUE_AT_ONCE_MAX` in one turn, and must not raise."""
        self._timers = timers
        self._schedule = schedule
        self._deliver = deliver
        self._waiting: dict[float, tuple[dict[T, None], Timer]] = {}

    def add(self, entry: T, when_s: float) -> None:
        found = self._waiting.get(when_s)
        if found is None:
            found = self._waiting[when_s] = {}, self._timers.at(when_s, lambda: self._hand_out(when_s))
        found[0][entry] = None

    def remove(self, entry: T, when_s: float) -> None:
        """Cancels the timer if no entry is left for this time. Idempotent."""
        found = self._waiting.get(when_s)
        if found is None:
            return
        waiting, timer = found
        waiting.pop(entry, None)
        if not waiting:
            del self._waiting[when_s]
            timer.cancel()

    def __len__(self) -> int:
        return sum(len(waiting) for waiting, _ in self._waiting.values())

    def _hand_out(self, when_s: float) -> None:
        if when_s not in self._waiting:
            return  # every entry that was left for this turn has been removed
        waiting, _ = self._waiting[when_s]
        due = list(islice(waiting, DUE_AT_ONCE_MAX))
        for entry in due:
            del waiting[entry]
        if waiting:
            self._schedule(lambda: self._hand_out(when_s))
        else:
            del self._waiting[when_s]
        self._deliver(due)
