"""The delivery schedule of conflation: its timers, deliveries that are due together, and removed subscriptions."""

from __future__ import annotations

from collections.abc import Sequence

from beaconfire.base.clock import ManualClock
from beaconfire.base.timers import Timers
from beaconfire.delivery.delivery_schedule import DUE_AT_ONCE_MAX, DeliverySchedule
from beaconfire.model.events import InternalError
from beaconfire.protocols.port import Payload
from tests.fakes.transport import LineWire
from tests.unit.delivery.harness import ConflationHarness


def test_removed_subscription_gets_no_held_publication() -> None:
    """The delivery schedule drops the subscription at once, not only when it is due."""
    harness = ConflationHarness()
    reader = harness.subscribe(0.01)
    harness.publish(1, 2, 3)
    harness.hub.remove(reader.subscription)
    assert len(harness.hub.context.schedule) == 0
    harness.advance_time(100.0)
    assert reader.offsets_and_left_out() == [(1, 0)]


def test_repeated_subscribing_leaves_no_timer() -> None:
    """A client that subscribes, gets a held publication and unsubscribes, again and again, leaves nothing in the
    delivery schedule."""
    harness = ConflationHarness()
    most = 0
    for _ in range(1000):
        harness.clock.advance(0.001)  # each subscription has its own due time
        reader = harness.subscribe(0.01)
        harness.publish(1, 2)
        harness.hub.remove(reader.subscription)
        most = max(most, len(harness.timers))
    assert len(harness.timers) == 0
    assert harness.hub.context.schedule._waiting == {}
    assert most == 0, "at no time"


def test_timer_stays_for_the_other_subscriptions_of_its_time() -> None:
    """If one of two subscriptions that are due together is removed, the other one still gets its update."""
    harness = ConflationHarness()
    removed, reader = harness.subscribe(1.0), harness.subscribe(1.0)
    harness.publish(1, 2)
    harness.hub.remove(removed.subscription)
    harness.advance_time(1.0)
    assert (removed.offsets_and_left_out(), reader.offsets_and_left_out()) == ([(1, 0)], [(1, 0), (2, 0)])


def test_all_remaining_due_subscriptions_are_removed_before_the_next_turn() -> None:
    """Then the next turn delivers nothing, and the delivery schedule is empty."""
    harness = ConflationHarness()
    readers = [harness.subscribe(1.0) for _ in range(DUE_AT_ONCE_MAX + 2)]
    harness.publish(1, 2)
    harness.clock.advance(1.0)
    harness.timers.run_due()
    for reader in readers[DUE_AT_ONCE_MAX:]:
        harness.hub.remove(reader.subscription)
    harness.run_scheduled()
    assert [reader.offsets_and_left_out() for reader in readers[DUE_AT_ONCE_MAX:]] == [[(1, 0)]] * 2
    assert harness.hub.context.schedule._waiting == {}


def test_error_in_one_delivery_does_not_stop_the_others() -> None:
    """The other subscription that is due gets its updates, now and later. The error is reported."""

    class Broken(LineWire):
        def pack(self, payloads: Sequence[Payload]) -> bytes:
            if any(b'"data":2' in payload.data for payload in payloads):
                raise ZeroDivisionError
            return super().pack(payloads)

    harness = ConflationHarness()
    broken = harness.subscribe(1.0, wire=Broken(harness.codec))
    reader = harness.subscribe(1.0)
    harness.publish(1, 2)
    harness.recorder.expects_errors = True
    harness.advance_time(1.0)
    harness.publish(3)
    harness.advance_time(1.0)
    assert reader.offsets_and_left_out() == [(1, 0), (2, 0), (3, 0)]
    assert broken.offsets_and_left_out() == [(1, 0), (3, 0)]
    assert [event.where for event in harness.recorder.of(InternalError)] == ["conflation"]


def test_deliveries_that_are_due_together_are_spread_over_turns() -> None:
    """At most `DUE_AT_ONCE_MAX` are delivered in one turn.

    A subscription that is removed between two turns gets nothing.
    """
    harness = ConflationHarness()
    readers = [harness.subscribe(1.0) for _ in range(DUE_AT_ONCE_MAX + 10)]
    harness.publish(1, 2)
    assert len(harness.timers) == 1, "all were sent a publication in the same turn"
    harness.clock.advance(1.0)
    harness.timers.run_due()
    assert sum(reader.subscriber.outbox.queued_bytes > 0 for reader in readers) == DUE_AT_ONCE_MAX
    harness.hub.remove(readers[-1].subscription)
    harness.run_scheduled()
    assert [reader.offsets_and_left_out() for reader in readers[:-1]] == [[(1, 0), (2, 0)]] * (DUE_AT_ONCE_MAX + 9)
    assert readers[-1].offsets_and_left_out() == [(1, 0)]
    harness.publish(3)
    assert len(harness.timers) == 1, "they share a due time again, although the delivery took two turns"


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
