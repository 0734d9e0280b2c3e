"""Fan-out to the plain subscriptions of large channels, and how channels share the turns of the event loop."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.loop import SLICE_S
from beaconfire.delivery.fan_out import CHUNK, DIRECT_SUBSCRIBERS_MAX, FanOut
from beaconfire.delivery.subscription import SubscriptionPhase
from beaconfire.model.events import BatchFannedOut, InternalError
from beaconfire.model.publication import Publication
from tests.fakes.clock import AdvancingClock
from tests.unit.delivery.harness import FakeSubscriber, PlainHarness


def interrupted() -> PlainHarness:
    """A walk visits one subscription in each turn."""
    harness = PlainHarness()
    harness.interrupt_walks()
    return harness


def flush_once(harness: PlainHarness) -> None:
    """The next turn of the hub, and the turns of the flusher before it."""
    while harness.scheduled:
        callback = harness.scheduled.pop(0)
        callback()
        if callback == harness.hub.fan_out.flush:
            return


def has_frame(subscriber: FakeSubscriber) -> bool:
    return subscriber.outbox.queued_bytes > 0 or bool(subscriber.transport.writes)


def test_large_channel_is_walked_in_slices() -> None:
    """No turn takes longer than a slice and one chunk. Everybody gets every batch once, in order."""
    harness = PlainHarness()
    subscribers = [harness.subscribe(top=0)[0] for _ in range(10 * CHUNK + 3)]
    fan_out = harness.hub.fan_out
    fan_out._now_s = AdvancingClock(ManualClock(), 0.0015).now_s  # a chunk takes 1.5 ms
    harness.publish(1)
    reached = [0]
    while harness.scheduled:
        flush_once(harness)
        reached.append(sum(map(has_frame, subscribers)))
        if fan_out.is_interrupted and len(reached) == 3:
            harness.publish(2, 3)
    chunks = [(after - before) / CHUNK for before, after in pairwise(reached)]
    assert max(chunks) <= SLICE_S / 0.0015 + 1
    assert all(subscriber.data() == [1, 2, 3] for subscriber in subscribers)
    assert [event.publications for event in harness.recorder.of(BatchFannedOut)] == [1, 2]
    assert all(event.subscribers == len(subscribers) for event in harness.recorder.of(BatchFannedOut))


def test_channel_that_is_written_in_one_piece_is_one_chunk() -> None:
    """Its frames fit into one write batch."""
    assert DIRECT_SUBSCRIBERS_MAX <= CHUNK
    harness = PlainHarness(direct=True)
    subscribers = [harness.subscribe(top=0)[0] for _ in range(DIRECT_SUBSCRIBERS_MAX)]
    harness.hub.fan_out.slice_s = -1.0
    harness.publish(1)
    harness.run_turn()
    assert all(subscriber.data() == [1] for subscriber in subscribers)


@pytest.mark.parametrize("top", [None, 0])
def test_join_during_a_walk_gets_only_later_publications(top: int | None) -> None:
    """With and without a position. The batch of the walk and pending items came before the join."""
    harness = interrupted()
    subscribers = [harness.subscribe(top)[0] for _ in range(3)]
    harness.publish(1)
    flush_once(harness)
    harness.publish(2)
    late, _ = harness.subscribe(top if top is None else 2)
    harness.publish(3)
    harness.run_scheduled()
    assert [subscriber.data() for subscriber in subscribers] == [[1, 2, 3]] * 3
    assert (late.data(), late.gaps) == ([3], [])


@pytest.mark.parametrize("top", [None, 0])
def test_leave_during_a_walk_gets_earlier_publications_once(top: int | None) -> None:
    """Whether the walk has visited the subscription or not. Nothing comes afterwards."""
    harness = interrupted()
    members = [harness.subscribe(top) for _ in range(4)]
    harness.publish(1)
    flush_once(harness)
    flush_once(harness)
    harness.publish(2)
    for _, subscription in members[:3]:
        harness.hub.remove(subscription)
    harness.publish(3)
    harness.run_scheduled()
    assert [subscriber.data() for subscriber, _ in members] == [[1, 2], [1, 2], [1, 2], [1, 2, 3]]


def test_client_that_comes_back_during_a_walk_is_not_visited_again() -> None:
    """Its new subscription has a new number."""
    harness = interrupted()
    members = [harness.subscribe() for _ in range(3)]
    harness.publish(1)
    flush_once(harness)
    subscriber, subscription = members[2]
    harness.hub.remove(subscription)
    again = subscriber.subscription()
    harness.hub.add(again)
    again.go_live(None)
    harness.publish(2)
    harness.run_scheduled()
    assert subscriber.data() == [1, 2]


def test_many_leaves_during_a_walk_deliver_to_each_once() -> None:
    """The walk then finds nobody to deliver to."""
    harness = interrupted()
    members = [harness.subscribe() for _ in range(50)]
    harness.publish(1)
    flush_once(harness)
    for _, subscription in reversed(members[1:]):
        harness.hub.remove(subscription)
    reached = [has_frame(subscriber) for subscriber, _ in members]
    assert reached == [True] * 50
    assert members[1][1].phase is SubscriptionPhase.ENDED
    flush_once(harness)
    harness.run_scheduled()
    assert [subscriber.data() for subscriber, _ in members] == [[1]] * 50


def test_new_items_of_other_channels_come_before_a_long_walk() -> None:
    """A small channel does not wait for a large one."""
    harness = interrupted()
    for _ in range(50):
        harness.subscribe(channel="large")
    small, _ = harness.subscribe(channel="small")
    harness.publish(1, channel="large")
    flush_once(harness)
    harness.publish(1, channel="small")
    flush_once(harness)
    assert has_frame(small)
    assert harness.hub.fan_out.is_interrupted


def test_long_walks_continue_although_other_channels_are_busy() -> None:
    """In each turn the walk visits at least one subscription."""
    harness = interrupted()
    large = [harness.subscribe(channel="large")[0] for _ in range(5)]
    harness.subscribe(channel="small")
    harness.publish(1, channel="large")
    for number in range(1, 7):
        harness.publish(number, channel="small")
        flush_once(harness)
    assert all(map(has_frame, large))


def test_many_channels_with_new_items_are_spread_over_turns() -> None:
    """Each gets its items once, in the order of publishing."""
    harness = interrupted()
    subscribers = [harness.subscribe(channel=f"c{number}")[0] for number in range(5)]
    for number in range(5):
        harness.publish(number + 1, channel=f"c{number}")
    reached = []
    for _ in range(5):
        flush_once(harness)
        reached.append(sum(map(has_frame, subscribers)))
    assert reached == [1, 2, 3, 4, 5]
    harness.run_scheduled()
    assert [subscriber.data() for subscriber in subscribers] == [[1], [2], [3], [4], [5]]


def test_channel_without_subscribers_is_skipped() -> None:
    """The last subscription got the pending items when it left."""
    harness = PlainHarness()
    subscriber, subscription = harness.subscribe()
    harness.publish(1)
    harness.hub.remove(subscription)
    harness.run_scheduled()
    assert subscriber.data() == [1]
    assert harness.recorder.of(BatchFannedOut) == []


def test_error_in_a_later_slice_ends_the_walk_and_not_the_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is reported, and so are gaps that were found before it. Items that waited are delivered."""
    harness = interrupted()
    harness.recorder.expects_errors = True
    members = [harness.subscribe() for _ in range(3)]
    harness.publish(1)
    flush_once(harness)
    harness.publish(2)
    with monkeypatch.context() as patch:
        patch.setattr(FanOut, "_visit", lambda *_: 1 / 0)
        flush_once(harness)
    harness.run_scheduled()
    assert [event.where for event in harness.recorder.of(InternalError)] == ["fan-out"]
    assert [subscriber.data() for subscriber, _ in members] == [[1, 2], [2], [2]]


def test_held_publications_are_delivered_after_the_reply() -> None:
    """In one frame. If one of them cannot be encoded, the owner is told. None is no delivery."""
    harness = PlainHarness()
    subscriber = harness.new_subscriber()
    for data, delivered, undeliverable in ((b"7", [7, 7], 0), (b"\xff", [7, 7], 1)):
        subscription = subscriber.subscription()
        harness.hub.add(subscription)
        for _ in range(2):
            harness.publish_one(Publication(Raw(data)))
        harness.run_scheduled()
        held = subscription.go_live(None)
        harness.hub.deliver_held(subscription, held)
        harness.hub.deliver_held(subscription, [])
        harness.hub.remove(subscription)
        harness.run_scheduled()
        assert (subscriber.data(), subscriber.undeliverable) == (delivered, undeliverable)
    assert len(subscriber.transport.writes) == 1
    assert harness.hub.statistics().delivered_total == 2


def test_joined_subscription_shares_no_whole_batch_with_earlier_ones() -> None:
    """It gets the items after its join, in a frame that it shares with others that joined then."""
    harness = PlainHarness()
    early, _ = harness.subscribe()
    harness.publish(1)
    late = [harness.subscribe()[0] for _ in range(2)]
    harness.publish(2)
    harness.run_scheduled()
    assert (early.data(), [subscriber.data() for subscriber in late]) == ([1, 2], [[2], [2]])
    assert harness.wire.packed == 2
