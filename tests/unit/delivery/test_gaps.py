"""Marked gaps: every subscription with a position learns that publications are missing."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.delivery.fan_out import REPORTS_MAX
from beaconfire.delivery.subscription import Gap, Subscription, SubscriptionPhase
from beaconfire.model.events import InternalError
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from tests.unit.delivery.harness import PlainHarness


def test_marked_gap_ends_live_subscriptions_with_a_position(harness: PlainHarness) -> None:
    """They get nothing that is published afterwards. Subscriptions without a position stay and get everything."""
    positioned, ended = harness.subscribe(top=0)
    other, _ = harness.subscribe()
    elsewhere, _ = harness.subscribe(top=0, channel="sport")
    harness.publish(1)
    harness.run_scheduled()
    harness.hub.mark_gap("news", "the link was down")
    harness.hub.mark_gap("without subscribers", "the link was down")
    harness.publish(2)
    harness.run_scheduled()
    harness.publish(3)
    harness.run_scheduled()
    assert (positioned.data(), positioned.gaps) == ([1], ["the link was down"])
    assert ended.phase is SubscriptionPhase.ENDED
    assert (other.data(), other.gaps, elsewhere.gaps) == ([1, 2, 3], [], [])


def test_marked_gap_reaches_subscriptions_that_are_catching_up(harness: PlainHarness) -> None:
    """They cannot go live, so they must subscribe again. Those without a position can."""
    subscriber, unpositioned = harness.new_subscriber(), harness.new_subscriber()
    catching_up, free = subscriber.subscription(positioned=True), unpositioned.subscription()
    for subscription in (catching_up, free):
        harness.hub.add(subscription)
    harness.hub.mark_gap("news", "lost")
    harness.run_scheduled()
    assert (subscriber.gaps, unpositioned.gaps) == (["lost"], [])
    with pytest.raises(Gap):
        catching_up.go_live(StreamPosition(0, "e"))
    assert free.go_live(None) == []


def test_subscription_that_goes_live_before_it_is_told_is_told(harness: PlainHarness) -> None:
    """Between the mark and the turn of the event loop that tells it."""
    subscriber = harness.new_subscriber()
    subscription = subscriber.subscription(positioned=True)
    harness.hub.add(subscription)
    harness.hub.mark_gap("news", "lost")
    subscription.go_live(StreamPosition(0, "e"))
    harness.run_scheduled()
    assert subscriber.gaps == ["lost"]


def test_subscription_that_is_added_after_a_gap_is_not_told(harness: PlainHarness) -> None:
    """Its history is read after the gap."""
    harness.subscribe(top=0)
    harness.hub.mark_gap("news", "lost")
    late, _ = harness.subscribe(top=4)
    harness.publish(5)
    harness.run_scheduled()
    assert (late.data(), late.gaps) == ([5], [])


def test_position_of_the_channel_is_not_known_after_a_gap(harness: PlainHarness) -> None:
    """It is that of the next subscription that goes live, or of the next publication."""
    harness.subscribe(top=3)
    harness.hub.mark_gap("news", "lost")
    announced = [harness.hub.announced("news")]
    harness.run_scheduled()
    harness.subscribe(top=8)
    announced.append(harness.hub.announced("news"))
    assert announced == [None, (8, "e")]


def test_subscriptions_that_miss_nothing_are_not_told_of_a_gap(harness: PlainHarness) -> None:
    """Live, or while a recovery continues in pieces. One that has read nothing yet may miss publications."""
    live = [harness.subscribe(top=top)[0] for top in (2, 3)]
    others = [harness.new_subscriber() for _ in range(4)]
    reached = (StreamPosition(2, "e"), StreamPosition(3, "e"), StreamPosition(3, "f"), None)
    for subscriber, position in zip(others, reached, strict=True):
        subscription = subscriber.subscription(positioned=True)
        harness.hub.add(subscription)
        if position is not None:
            subscription.fall_behind(position)
    harness.hub.mark_gap("news", "lost", StreamPosition(3, "e"))
    harness.run_scheduled()
    assert [subscriber.gaps for subscriber in live] == [["lost"], []]
    assert [subscriber.gaps for subscriber in others] == [["lost"], [], ["lost"], ["lost"]]


def test_subscriptions_are_told_of_a_gap_in_slices() -> None:
    """A report ends a subscription, which takes time. All of them are told once, and none gets a publication."""
    harness = PlainHarness()
    subscribers = [harness.subscribe(top=0)[0] for _ in range(3 * REPORTS_MAX)]
    harness.hub.fan_out.slice_s = -1.0
    harness.hub.mark_gap("news", "lost")
    harness.publish(1)
    told = []
    while harness.scheduled:
        before = sum(map(len, (subscriber.gaps for subscriber in subscribers)))
        harness.run_turn()
        told.append(sum(map(len, (subscriber.gaps for subscriber in subscribers))) - before)
    assert max(told) <= REPORTS_MAX
    assert sum(told) == len(subscribers)
    assert all((subscriber.gaps, subscriber.data()) == (["lost"], []) for subscriber in subscribers)


@pytest.mark.parametrize("publication", [Publication(Raw(b"1"), offset=2), Publication(Raw(b"\xff"), offset=1)])
def test_other_reports_are_made_in_portions_as_well(publication: Publication) -> None:
    """A missing publication, and one that cannot be encoded: the clock is read after `REPORTS_MAX` reports."""
    harness = PlainHarness(direct=True)
    subscribers = [harness.subscribe(top=0)[0] for _ in range(REPORTS_MAX + 1)]
    harness.hub.fan_out.slice_s = -1.0
    harness.publish_one(publication, "e")
    told = []
    for turn in (harness.run_turn, harness.run_scheduled):
        turn()
        told.append(sum(len(subscriber.gaps) + subscriber.undeliverable for subscriber in subscribers))
    assert told == [REPORTS_MAX, REPORTS_MAX + 1]


def test_error_of_one_owner_does_not_stop_the_other_reports(harness: PlainHarness) -> None:
    """The error is reported."""
    harness.recorder.expects_errors = True
    first, _ = harness.subscribe(top=0)
    second, _ = harness.subscribe(top=0)

    def fail(subscription: Subscription) -> None:
        raise ZeroDivisionError

    first.react = fail
    harness.hub.mark_gap("news", "lost")
    harness.run_scheduled()
    assert second.gaps == ["lost"]
    assert [event.where for event in harness.recorder.of(InternalError)] == ["fan-out"]
