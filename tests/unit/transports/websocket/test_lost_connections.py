"""Sessions learn of lost connections a few at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from beaconfire.base.errors import CONNECTION_CLOSED, DisconnectCode
from beaconfire.transports.websocket.lost_connections import TOLD_PER_TURN, LostConnections
from beaconfire.transports.websocket.null_receiver import NullReceiver


class Told(NullReceiver):
    """Writes its number when its connection is lost, and then fails if it shall."""

    def __init__(self, number: int, told: list[int], fails: bool = False) -> None:
        self.number, self.told, self.fails = number, told, fails

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        self.told.append(self.number)
        if self.fails:
            raise RuntimeError


class Turns:
    """An event loop whose turns a test starts."""

    def __init__(self) -> None:
        self.scheduled: list[Callable[[], None]] = []
        self.lost = LostConnections(self.scheduled.append)

    def turn(self) -> None:
        calls, self.scheduled[:] = list(self.scheduled), []
        for call in calls:
            call()


def test_a_turn_ends_at_most_so_many_sessions() -> None:
    """In the order of the losses. The first ones end at once, as do single losses."""
    turns, told = Turns(), list[int]()
    count = 2 * TOLD_PER_TURN + 1
    for number in range(count):
        turns.lost.add(Told(number, told))
    for expected in (TOLD_PER_TURN, 2 * TOLD_PER_TURN, count):
        assert told == list(range(expected))
        turns.turn()


def test_later_losses_wait_for_earlier_ones() -> None:
    """Also if they happen in the turn that tells the earlier ones."""
    turns, told = Turns(), list[int]()
    for number in range(TOLD_PER_TURN + 5):
        turns.lost.add(Told(number, told))
    turns.turn()
    for number in range(TOLD_PER_TURN + 5, 2 * TOLD_PER_TURN + 5):
        turns.lost.add(Told(number, told))
    turns.turn()
    assert told == list(range(2 * TOLD_PER_TURN + 5))


def test_nothing_is_scheduled_when_nothing_is_left() -> None:
    """One turn after the last loss."""
    turns, told = Turns(), list[int]()
    turns.lost.add(Told(1, told))
    turns.turn()
    assert (told, turns.scheduled) == ([1], [])


def test_a_session_that_fails_to_end_stops_no_later_turn() -> None:
    """The event loop reports the exception."""
    turns, told = Turns(), list[int]()
    for number in range(3 * TOLD_PER_TURN):
        turns.lost.add(Told(number, told, fails=number == TOLD_PER_TURN))
    with pytest.raises(RuntimeError):
        turns.turn()
    for _ in range(3):
        turns.turn()
    assert told == list(range(3 * TOLD_PER_TURN))
