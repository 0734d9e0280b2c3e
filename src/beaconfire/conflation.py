"""The latest instead of all: for subscriptions to a state that changes faster than anybody looks.

A subscription that conflates gets at most so many updates a second, and only the newest while its connection takes
nothing. What it is owed is one publication, whatever came meanwhile: a newer one takes its place, and when it is told,
it says how many were left out before it. The newest is never left out, so whoever listens long enough has it.

What is left out counts as given for everything that concerns gaps, because nothing is missing that was wanted. But a
client that comes back with its position is asked from where it was told last, not from where the stream was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from beaconfire.batch import Item
from beaconfire.clock import Timer

RATE_MIN: Final = 0.01
RATE_MAX: Final = 1000.0
"""Updates a second that a subscription may ask for. One in 100 s is enough of a limit to wait for."""


class Owed(NamedTuple):
    """A publication, and how many before it were left out since the one that was told last."""

    item: Item
    left_out: int


class Conflation:
    """What one subscription is owed, and from when on it may be told."""

    __slots__ = ("_left_out", "due_s", "interval_s", "owed", "since", "timer")

    def __init__(self, max_rate: float) -> None:
        """`max_rate` in updates a second; 0 for one that is bounded by its connection alone."""
        self.interval_s = 1 / max_rate if max_rate else 0.0
        self.due_s = 0.0
        """The monotonic time before which nothing is told."""
        self.owed: Item | None = None
        self.since: int | None = None
        """The offset of the last that was told or left out before; None if nothing of the stream is owed."""
        self.timer: Timer | None = None
        """Rings when what is owed may be told."""
        self._left_out = 0

    def owe(self, items: Sequence[Item]) -> None:
        """Publications to be told, at least one, in order: the last of them takes the place of all before."""
        if self.owed is not None:
            self._left_out += 1
        self._left_out += len(items) - 1
        if self.since is None:
            self.since = next((item.offset - 1 for item in items if item.offset), None)
        self.owed = items[-1]

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
        if self.timer is not None:
            self.timer.cancel()
