"""Clocks that are passed in, and many timers that one periodic call fires."""

from __future__ import annotations

from beaconfire.base.clock import ManualClock, SystemClock
from beaconfire.base.timers import Timer, Timers


def make() -> tuple[ManualClock, Timers, list[str]]:
    clock = ManualClock()
    return clock, Timers(clock), []


def test_the_manual_clock_moves_only_by_advance() -> None:
    """`advance` moves the monotonic and the Unix time by the same amount."""
    clock = ManualClock(now_s=5.0, unix_s=100.0)
    assert (clock.now_s(), clock.unix_s()) == (5.0, 100.0)
    clock.advance(2.5)
    assert (clock.now_s(), clock.unix_s()) == (7.5, 102.5)


def test_the_system_clock_goes_forward() -> None:
    """The monotonic time never decreases, and the Unix time is in this century."""
    clock = SystemClock()
    assert clock.now_s() <= clock.now_s()
    assert clock.unix_s() > 1_600_000_000


def test_timers_fire_in_the_order_of_their_times() -> None:
    """The order of creation decides only between equal times."""
    clock, timers, fired = make()
    timers.after(3, lambda: fired.append("late"))
    timers.after(1, lambda: fired.append("early"))
    timers.after(2, lambda: fired.append("first of two"))
    timers.after(2, lambda: fired.append("second of two"))
    clock.advance(10)
    timers.run_due()
    assert fired == ["early", "first of two", "second of two", "late"]


def test_timers_never_fire_early() -> None:
    """A timer fires once, when its time is reached, and never before."""
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
    """A timer may be cancelled by another timer of the same time. Cancelled timers do not stay in memory."""
    clock, timers, fired = make()
    victims: list[Timer] = []
    timers.after(1, lambda: victims[0].cancel())
    victims.append(timers.after(1, lambda: fired.append("x")))
    assert len(timers) == 2
    clock.advance(1)
    timers.run_due()
    assert fired == []
    assert len(timers) == 0


def test_a_callback_may_add_timers() -> None:
    """A timer that is already due fires in the same call, in the order of its time; a later one waits."""
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


def test_a_timer_is_marked_as_fired_before_its_callback_runs() -> None:
    """So code in the callback can see that it must set a new timer."""
    clock, timers, _ = make()
    seen: list[object] = []
    timer = timers.after(1, lambda: seen.append(timer.callback))
    clock.advance(1)
    timers.run_due()
    assert seen == [None]


def test_cancelled_timers_are_removed_in_time() -> None:
    """At any time at most half of the timers in memory are cancelled ones; all other timers fire as usual.

    Cancelling a timer twice, or after it has fired, has no effect.
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
