"""Calls that a turn of the event loop makes only for a slice of time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.base.loop import SLICE_S, PacedCalls


class Turns:
    """An event loop whose turns a test starts. Each call takes more than half a slice."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.scheduled: list[Callable[[], None]] = []
        self.paced = PacedCalls(self.scheduled.append, self.clock.now_s)
        self.called: list[int] = []

    def call(self, number: int, fails: bool = False) -> None:
        def function() -> None:
            self.called.append(number)
            self.clock.advance(SLICE_S * 0.6)
            if fails:
                raise RuntimeError

        self.paced.call(function)

    def turn(self) -> None:
        calls, self.scheduled[:] = list(self.scheduled), []
        for call in calls:
            call()


def test_a_turn_makes_calls_for_one_slice() -> None:
    """The first ones at once, the rest in the next turns, in their order."""
    turns = Turns()
    for number in range(5):
        turns.call(number)
    for count in (2, 4, 5):
        assert turns.called == list(range(count))
        turns.turn()
    turns.turn()
    assert turns.scheduled == []


def test_later_calls_wait_for_earlier_ones() -> None:
    """Also if they come in a turn that has time left, or from a call."""
    turns = Turns()
    for number in range(3):
        turns.call(number)
    turns.paced.call(lambda: turns.call(4))
    turns.call(3)
    turns.turn()
    turns.turn()
    turns.turn()
    assert turns.called == [0, 1, 2, 3, 4]


def test_each_turn_makes_one_call_at_least() -> None:
    """However long the turn has taken before."""
    turns = Turns()
    for number in range(4):
        turns.call(number)
    turns.clock.advance(1)
    turns.turn()
    assert turns.called == [0, 1, 2, 3]


def test_a_call_that_fails_stops_no_other_one() -> None:
    """The event loop reports the exception."""
    turns = Turns()
    for number in range(5):
        turns.call(number, fails=number == 2)
    with pytest.raises(RuntimeError):
        turns.turn()
    turns.turn()
    turns.turn()
    assert turns.called == [0, 1, 2, 3, 4]


def test_a_new_turn_has_a_new_slice() -> None:
    """Without calls that wait."""
    turns = Turns()
    for number in range(4):
        turns.call(number)
        turns.turn()
    assert turns.called == [0, 1, 2, 3]
