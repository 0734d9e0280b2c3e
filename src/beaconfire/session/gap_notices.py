"""Tells clients that publications are missing, at a limited rate for the whole node.

A client that is told subscribes again. If the node told all subscriptions at the same time, for example after the
engine has lost a stream with many subscribers, all of them would subscribe again at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from beaconfire.base.timers import Timers
from beaconfire.delivery.subscription import Subscription
from beaconfire.model.events import EventSink, LimitHit

WINDOW_S: Final = 0.1
"""The rate is counted in windows of this length."""


class GapOwner(Protocol):
    """The part of a session that gap notices use."""

    @property
    def client(self) -> str: ...

    def tell_gap(self, subscription: Subscription, reason: str) -> None:
        """Tells the client, who subscribes or connects again."""


class GapNotices:
    """The notices that wait for their turn. They are sent in random order, so that no channel or session comes last."""

    def __init__(self, rate_limit: int, timers: Timers, random: Callable[[], float], events: EventSink) -> None:
        """`rate_limit` is in notices per second, 0 for no limit. `random` returns numbers in [0, 1)."""
        self._per_window = max(1, int(rate_limit * WINDOW_S)) if rate_limit else 0
        self._timers = timers
        self._random = random
        self._events = events
        self._window_s = 0.0
        """When the current window began."""
        self._sent = 0
        """Notices of the current window."""
        self._waiting: list[tuple[GapOwner, Subscription, str]] = []
        self._indexes: dict[Subscription, int] = {}
        """The place of each subscription in `_waiting`."""

    def add(self, owner: GapOwner, subscription: Subscription, reason: str) -> None:
        """Ends the subscription: nothing is delivered to it any more. Tells the owner now or later."""
        if subscription in self._indexes:
            return
        subscription.end()
        if not self._per_window or (not self._waiting and self._has_room()):
            self._sent += 1
            owner.tell_gap(subscription, reason)
            return
        self._events.emit(LimitHit("client.gap_rate_limit", owner.client))
        if not self._waiting:
            self._timers.after(WINDOW_S, self._send)
        self._indexes[subscription] = len(self._waiting)
        self._waiting.append((owner, subscription, reason))

    def discard(self, subscription: Subscription) -> None:
        """The subscription was removed, so nobody needs to be told. Does nothing if no notice waits."""
        index = self._indexes.get(subscription)
        if index is not None:
            self._take(index)

    def __len__(self) -> int:
        """The number of notices that wait."""
        return len(self._waiting)

    def _has_room(self) -> bool:
        now_s = self._timers.clock.now_s()
        if now_s - self._window_s >= WINDOW_S:
            self._window_s = now_s
            self._sent = 0
        return self._sent < self._per_window

    def _send(self) -> None:
        while self._waiting and self._has_room():
            self._sent += 1
            owner, subscription, reason = self._take(int(self._random() * len(self._waiting)))
            owner.tell_gap(subscription, reason)
        if self._waiting:
            self._timers.after(WINDOW_S, self._send)

    def _take(self, index: int) -> tuple[GapOwner, Subscription, str]:
        """Takes out one notice. The last one takes its place, because the order does not matter."""
        taken, last = self._waiting[index], self._waiting.pop()
        if last is not taken:
            self._waiting[index] = last
            self._indexes[last[1]] = index
        del self._indexes[taken[1]]
        return taken
