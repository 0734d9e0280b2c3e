"""Timers that set one call of the event loop at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.base.timers import PreciseTimers, Timer


class FakeEventLoop:
    """Calls back when the test advances its time. Implements `call_later` for `PreciseTimers`."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.calls: list[Timer] = []

    def later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        call = Timer(self.clock.now_s() + delay_s, callback)
        self.calls.append(call)
        return call

    @property
    def pending(self) -> list[Timer]:
        return [call for call in self.calls if call.callback is not None]

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        due = [call for call in self.pending if call.when_s <= self.clock.now_s()]
        self.calls = [call for call in self.pending if call not in due]
        for call in due:
            if call.callback is not None:
                call.callback()


def test_event_loop_call_is_set_for_the_earliest_timer() -> None:
    """A later timer sets no call of its own, an earlier one does, and each timer fires at its time."""
    loop = FakeEventLoop()
    timers = PreciseTimers(loop.clock, loop.later)
    fired: list[str] = []
    timers.after(2.0, lambda: fired.append("second"))
    timers.after(3.0, lambda: fired.append("third"))
    timers.after(1.0, lambda: fired.append("first"))
    assert len(loop.pending) == 1
    for expected in (["first"], ["first", "second"], ["first", "second", "third"]):
        loop.advance(1.0)
        assert fired == expected
    assert loop.pending == []


def test_any_number_of_timers_needs_one_event_loop_call() -> None:
    """Timers of different lengths do not leave more calls behind."""
    loop = FakeEventLoop()
    timers = PreciseTimers(loop.clock, loop.later)

    def repeat(seconds: float) -> None:
        timers.after(seconds, lambda: repeat(seconds))

    repeat(1.0)
    repeat(0.25)
    for _ in range(40):
        loop.advance(0.25)
        assert len(loop.pending) == 1


def test_early_event_loop_call_sets_another_one() -> None:
    """Event loops round their times. A timer never fires too early."""
    loop = FakeEventLoop()
    timers = PreciseTimers(loop.clock, loop.later)
    fired: list[str] = []
    timers.after(1.0, lambda: fired.append("now"))
    [call] = loop.pending
    loop.calls.clear()
    loop.advance(0.999)
    assert call.callback is not None
    call.callback()
    assert fired == []
    loop.advance(0.001)
    assert fired == ["now"]


def test_failing_timer_does_not_stop_others() -> None:
    """The event loop reports the error."""
    loop = FakeEventLoop()
    timers = PreciseTimers(loop.clock, loop.later)
    fired: list[str] = []
    timers.after(1.0, lambda: 1 // 0)  # type: ignore[arg-type]
    timers.after(2.0, lambda: fired.append("the other"))
    with pytest.raises(ZeroDivisionError):
        loop.advance(1.0)
    loop.advance(1.0)
    assert fired == ["the other"]
