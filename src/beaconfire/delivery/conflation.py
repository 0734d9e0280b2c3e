"""The latest instead of all: for subscriptions to a state that changes faster than anybody looks.

A subscription that conflates gets at most so many updates a second, and only the newest while its connection takes
nothing. What it is owed is one publication, whatever came meanwhile: a newer one takes its place, and when it is told,
it says how many were left out before it. The newest is never left out, so whoever listens long enough has it.

What is left out counts as given for everything that concerns gaps, because nothing is missing that was wanted. But a
client that comes back with its position is asked from where it was told last, not from where the stream was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, Generic, NamedTuple, TypeVar

from beaconfire.base.timers import Timer, Timers
from beaconfire.delivery.batch import Item, Newest

RATE_MIN: Final = 0.01
RATE_MAX: Final = 1000.0
"""Updates a second that a subscription may ask for. One in 100 s is enough of a limit to wait for."""

TURN_MAX: Final = 1024
"""How many are paid in one turn of the event loop: some 3 ms of work."""

T = TypeVar("T")


class Owed(NamedTuple):
    """A publication, and how many before it were left out since the one that was told last."""

    item: Item
    left_out: int


class Conflation:
    """What one subscription is owed, and from when on it may be told."""

    __slots__ = ("_left_out", "due_s", "interval_s", "is_waiting", "owed", "since")

    def __init__(self, max_rate: float) -> None:
        """`max_rate` in updates a second; 0 for one that is bounded by its connection alone."""
        self.interval_s = 1 / max_rate if max_rate else 0.0
        self.due_s = 0.0
        """The monotonic time before which nothing is told."""
        self.owed: Item | None = None
        self.since: int | None = None
        """The offset of the last that was told or left out before; None if nothing of the stream is owed."""
        self.is_waiting = False
        """It is among the paydays, under `due_s`."""
        self._left_out = 0

    def owe(self, news: Newest) -> None:
        """The newest of what came takes the place of all before."""
        if self.owed is not None:
            self._left_out += 1
        self._left_out += news.size - 1
        if self.since is None:
            self.since = news.since
        self.owed = news.newest

    def pay(self, now_s: float) -> Owed:
        """It is told now, and from now the time to the next one counts."""
        assert self.owed is not None, "something is owed"
        owed = Owed(self.owed, self._left_out)
        self.owed = self.since = None
        self._left_out = 0
        self.told(now_s)
        return owed

    def told(self, now_s: float) -> None:
        """The client was told something in another way, in a reply."""
        self.due_s = now_s + self.interval_s

    def end(self) -> None:
        """Nothing is owed to one who has left."""
        self.owed = self.since = None


class DeliverySchedule(Generic[T]):
    """Who is to be paid when. Those who were told something in the same turn are due together, under one timer."""

    def __init__(
        self, timers: Timers, schedule: Callable[[Callable[[], None]], object], pay: Callable[[Sequence[T]], None]
    ) -> None:
        """`schedule` runs a callable on the next turn of the event loop. `pay` gets those of one turn, at most
        `TURN_MAX`, and must not raise."""
        self._timers = timers
        self._schedule = schedule
        self._pay = pay
        self._waiting: dict[float, tuple[dict[T, None], Timer]] = {}

    def add(self, who: T, when_s: float) -> None:
        found = self._waiting.get(when_s)
        if found is None:
            found = self._waiting[when_s] = {}, self._timers.at(when_s, lambda: self._hand_over(when_s))
        found[0][who] = None

    def remove(self, who: T, when_s: float) -> None:
        """The timer goes with the last who waited for it. Idempotent."""
        found = self._waiting.get(when_s)
        if found is None:
            return
        waiting, timer = found
        waiting.pop(who, None)
        if not waiting:
            del self._waiting[when_s]
            timer.cancel()

    def __len__(self) -> int:
        return sum(len(waiting) for waiting, _ in self._waiting.values())

    def _hand_over(self, when_s: float) -> None:
        if when_s not in self._waiting:
            return  # all who were left for this turn have gone
        waiting, _ = self._waiting[when_s]
        turn = list(islice(waiting, TURN_MAX))
        for who in turn:
            del waiting[who]
        if waiting:
            self._schedule(lambda: self._hand_over(when_s))
        else:
            del self._waiting[when_s]
        self._pay(turn)
