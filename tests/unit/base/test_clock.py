"""Time that is passed in, and many timers behind one wake-up."""

from __future__ import annotations

from beaconfire.base.clock import ManualClock, SystemClock
from beaconfire.base.timers import Timer, Timers


def make() -> tuple[ManualClock, Timers, list[str]]:
    clock = ManualClock()
    return clock, Timers(clock), []


def test_the_manual_clock_moves_only_when_told() -> None:
    """Both of its times move together, by as much as it is told."""
    clock = ManualClock(now_s=5.0, unix_s=100.0)
    assert (clock.now_s(), clock.unix_s()) == (5.0, 100.0)
    clock.advance(2.5)
    assert (clock.now_s(), clock.unix_s()) == (7.5, 102.5)


def test_the_system_clock_goes_forward() -> None:
    """The monotonic time never goes back, and the other one is this century's."""
    clock = SystemClock()
    assert clock.now_s() <= clock.now_s()
    assert clock.unix_s() > 1_600_000_000


def test_timers_fire_in_the_order_of_their_times() -> None:
    """Whatever the order they were set in; equal times fire in the order they were set."""
    clock, timers, fired = make()
    timers.after(3, lambda: fired.append("late"))
    timers.after(1, lambda: fired.append("early"))
    timers.after(2, lambda: fired.append("first of two"))
    timers.after(2, lambda: fired.append("second of two"))
    clock.advance(10)
    timers.run_due()
    assert fired == ["early", "first of two", "second of two", "late"]


def test_timers_never_fire_early() -> None:
    """One fires when its time is reached, not a moment before, and once."""
    clock, timers, fired = make()
    timers.at(1010.0, lambda: fired.append("x"))
    clock.advance(9.999)
    timers.run_due()
    assert fired == []
    clock.advance(0.001)
    timers.run_due()
    timers.run_due()
    assert fired == ["x"]
    assert len(timers) == 0


def test_cancelled_timers_do_not_fire() -> None:
    """Not even if they are cancelled by another timer of the same moment; they leave nothing behind."""
    clock, timers, fired = make()
    victims: list[Timer] = []
    timers.after(1, lambda: victims[0].cancel())
    victims.append(timers.after(1, lambda: fired.append("x")))
    assert len(timers) == 2
    clock.advance(1)
    timers.run_due()
    assert fired == []
    assert len(timers) == 0


def test_a_callback_may_set_timers() -> None:
    """One that is due already fires in the same call, in its place among the others; a later one waits."""
    clock, timers, fired = make()

    def first() -> None:
        fired.append("first")
        timers.at(clock.now_s(), lambda: fired.append("at once"))
        timers.at(clock.now_s() - 8.5, lambda: fired.append("overdue"))
        timers.after(5, lambda: fired.append("later"))

    timers.after(1, first)
    timers.after(9, lambda: fired.append("second"))
    clock.advance(10)
    timers.run_due()
    assert fired == ["first", "overdue", "second", "at once"]
    clock.advance(5)
    timers.run_due()
    assert fired[-1] == "later"


def test_a_callback_that_fires_is_spent_before_it_runs() -> None:
    """So its owner can tell, inside the callback, that it must set a new one."""
    clock, timers, _ = make()
    seen: list[object] = []
    timer = timers.after(1, lambda: seen.append(timer.callback))
    clock.advance(1)
    timers.run_due()
    assert seen == [None]


def test_cancelled_timers_do_not_pile_up() -> None:
    """However many are set and cancelled, at most as many cancelled ones are kept as others; those fire as they should.

    A timer that is cancelled twice, or after it has fired, counts once or not at all.
    """
    clock, timers, fired = make()
    timers.after(5, lambda: fired.append("first"))
    timers.after(9, lambda: fired.append("last"))
    spent = timers.after(0, lambda: None)
    timers.run_due()
    for number in range(1000):
        timer = timers.after(number % 20, lambda: fired.append("cancelled"))
        timer.cancel()
        timer.cancel()
        spent.cancel()
        assert len(timers) <= 4
    clock.advance(20)
    timers.run_due()
    assert fired == ["first", "last"]
    assert len(timers) == 0
    timers.after(1, lambda: fired.append("again")).cancel()
    assert len(timers) == 0, "the count of cancelled ones is right after all this"
