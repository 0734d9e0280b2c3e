"""Subscriptions that wait for their next delivery."""

from __future__ import annotations

from beaconfire.base.clock import ManualClock
from beaconfire.base.timers import Timers
from beaconfire.delivery.conflation import DeliverySchedule


def test_removing_a_subscription_twice_changes_nothing() -> None:
    """The last subscription of a time takes the timer with it; the others of that time are still delivered."""
    clock = ManualClock()
    timers = Timers(clock)
    delivered: list[str] = []
    schedule: DeliverySchedule[str] = DeliverySchedule(timers, lambda _: None, delivered.extend)
    for subscription, when_s in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        schedule.add(subscription, clock.now_s() + when_s)
    for _ in range(2):
        schedule.remove("a", clock.now_s() + 1.0)
        schedule.remove("c", clock.now_s() + 2.0)
    assert len(schedule) == 1
    clock.advance(3.0)
    timers.run_due()
    assert delivered == ["b"]
    assert len(schedule) == 0
