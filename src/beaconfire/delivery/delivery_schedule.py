"""When held publications are due."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, Generic, TypeVar

from beaconfire.base.loop import Schedule
from beaconfire.base.timers import Timer, Timers

DUE_AT_ONCE_MAX: Final = 1024
"""Deliveries that are handed out in one turn of the event loop: some 3 ms of work."""

T = TypeVar("T")


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
