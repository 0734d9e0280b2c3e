"""Tells sessions that their connections are lost, a few in each turn of the event loop.

When a network or a proxy fails, thousands of connections are lost in one turn. Ending a session costs some 20 µs:
subscriptions, presence, log line. All of them together would make every other client wait for a tenth of a second and
more.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from beaconfire.base.loop import Schedule
from beaconfire.transports.port import Receiver

TOLD_PER_TURN: Final = 100


class LostConnections:
    """Calls `Receiver.on_closed` once for each lost connection, in the order of the losses."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._waiting: deque[Receiver] = deque()
        self._told = 0
        """How many were told in this turn."""

    def add(self, receiver: Receiver) -> None:
        """Tells the receiver at once, or in one of the next turns if this turn has told `TOLD_PER_TURN`. Until then its
        connection takes nothing."""
        if self._waiting or self._told == TOLD_PER_TURN:
            self._waiting.append(receiver)
            return
        if self._told == 0:
            self._schedule(self._begin_turn)
        self._told += 1
        receiver.on_closed()

    def _begin_turn(self) -> None:
        self._told = 0
        if self._waiting:
            self._schedule(self._begin_turn)  # first, so that a receiver that fails stops no other one
        while self._waiting and self._told < TOLD_PER_TURN:
            self._told += 1
            self._waiting.popleft().on_closed()
