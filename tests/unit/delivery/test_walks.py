"""Walks over many subscriptions with a strategy: in slices, between which the event loop has its turns."""

from __future__ import annotations

from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.loop import SLICE_S
from beaconfire.delivery.channel import STRATEGY_BATCH_MAX
from beaconfire.delivery.fan_out import PENDING_ITEMS_MAX
from beaconfire.delivery.filtered import Filtered
from beaconfire.delivery.tags_filter import Predicate, Tags, TagsFilters
from beaconfire.model.events import BatchFannedOut, InternalError
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.model.requests import FilterNode
from tests.fakes.clock import AdvancingClock
from tests.fakes.transport import LineWire
from tests.unit.delivery.harness import WANTED, FakeSubscriber, Reader, StrategyHarness, text


class RecordedPredicate:
    """The predicate of a filter. Records the tags that it is applied to."""

    def __init__(self, predicate: Predicate, evaluated: list[Tags]) -> None:
        self._predicate = predicate
        self._evaluated = evaluated

    def __call__(self, tags: Tags) -> bool:
        self._evaluated.append(tags)
        return self._predicate(tags)


def publish(harness: StrategyHarness, *offsets: int) -> None:
    for offset in offsets:
        harness.publish(offset, text(offset), "wanted")


def subscribe_many(harness: StrategyHarness, count: int) -> list[Reader]:
    return [harness.subscribe(StreamPosition(0, "e"), node=WANTED) for _ in range(count)]


def test_many_different_filters_are_evaluated_in_slices() -> None:
    """Each filter is evaluated once, and no turn takes longer than a slice and one subscription."""
    harness = StrategyHarness()
    filters = TagsFilters(100, 100)
    evaluated: list[Tags] = []
    for number in range(300):
        tags_filter = filters.compile(FilterNode(key="kind", cmp="neq", val=str(number)))
        tags_filter._predicate = RecordedPredicate(tags_filter._predicate, evaluated)
        strategy = harness.subscribe(None, node=WANTED).subscription.strategy
        assert isinstance(strategy, Filtered)
        strategy.tags_filter = tags_filter
    harness.hub.fan_out._now_s = AdvancingClock(ManualClock(), 0.001).now_s
    harness.publish(0, text(1))
    most = turns = 0
    while harness.scheduled:
        before = len(evaluated)
        harness.run_turn()
        most = max(most, len(evaluated) - before)
        turns += 1
    assert len(evaluated) == 300
    assert most <= SLICE_S * 1000 + 1
    assert turns > 50
    [event] = harness.recorder.of(BatchFannedOut)
    assert event.subscribers == 300
    assert 0.3 < event.duration_s < 1.0, "the time of all slices"


def test_next_batch_waits_for_the_end_of_the_walk() -> None:
    """All subscriptions get both batches in order, also those without a strategy."""
    harness = StrategyHarness(interrupted=True)
    plain, readers = harness.subscribe(StreamPosition(0, "e")), subscribe_many(harness, 3)
    publish(harness, 1)
    harness.run_turn()
    publish(harness, 2, 3)
    harness.run_turn()
    harness.run_turn()
    assert sum(reader.offsets() == [] for reader in readers) >= 1
    assert all(reader.offsets() in ([], [1]) for reader in (plain, *readers))
    harness.run_scheduled()
    assert all(reader.offsets() == [1, 2, 3] for reader in (plain, *readers))


def test_subscription_removed_during_a_walk_gets_earlier_publications_once() -> None:
    """It gets them in the walk or when it is removed, and nothing afterwards."""
    harness = StrategyHarness(interrupted=True)
    readers = subscribe_many(harness, 4)
    publish(harness, 1)
    harness.run_turn()
    publish(harness, 2)
    for reader in readers[:3]:
        harness.hub.remove(reader.subscription)
    publish(harness, 3)
    harness.run_scheduled()
    assert [reader.offsets() for reader in readers] == [[1, 2], [1, 2], [1, 2], [1, 2, 3]]


def test_subscription_added_during_a_walk_gets_no_earlier_publications() -> None:
    """It gets neither the batch of the walk nor the batch that waits for its end."""
    harness = StrategyHarness(interrupted=True)
    readers = subscribe_many(harness, 3)
    publish(harness, 1)
    harness.run_turn()
    publish(harness, 2)
    live = harness.subscribe(None, node=WANTED)
    publish(harness, 3)
    harness.run_scheduled()
    assert all(reader.offsets() == [1, 2, 3] for reader in readers)
    assert live.offsets() == [3]


def test_subscription_that_goes_live_during_a_walk_gets_the_batch_once() -> None:
    """It has the batch from history and does not get it from the walk as well."""
    harness = StrategyHarness(interrupted=True)
    readers = subscribe_many(harness, 3)
    harness.hub.remove(readers[0].subscription)
    resubscribed = readers[0].subscriber.subscription("news", readers[0].subscription.strategy)
    harness.hub.add(resubscribed)
    publish(harness, 1)
    harness.run_turn()
    assert resubscribed.go_live(StreamPosition(1, "e")) == []
    publish(harness, 2)
    harness.run_scheduled()
    assert Reader(readers[0].subscriber, resubscribed).offsets() == [2]
    assert readers[0].subscriber.gaps == []
    assert [reader.offsets() for reader in readers[1:]] == [[1, 2], [1, 2]]


def test_walk_ends_if_all_its_subscriptions_are_removed() -> None:
    """Later subscriptions are not part of it."""
    harness = StrategyHarness(interrupted=True)
    readers = subscribe_many(harness, 3)
    publish(harness, 1)
    harness.run_turn()
    publish(harness, 2)
    for reader in readers:
        harness.hub.remove(reader.subscription)
    late = [harness.subscribe(StreamPosition(2, "e"), node=WANTED) for _ in range(2)]
    harness.run_turn()
    publish(harness, 3)
    harness.run_scheduled()
    assert [reader.offsets() for reader in readers] == [[1, 2]] * 3
    assert [reader.offsets() for reader in late] == [[3]] * 2
    assert not harness.hub.fan_out.is_interrupted


def test_walks_of_several_channels_take_turns() -> None:
    """A long walk in one channel does not delay the others."""
    harness = StrategyHarness(interrupted=True)
    subscribe_many(harness, 50)
    other = FakeSubscriber("other", harness.flusher, harness.wire)
    plain = FakeSubscriber("plain", harness.flusher, harness.wire)
    for subscriber, node in ((other, WANTED), (plain, None)):
        subscription = subscriber.subscription("elsewhere", harness.subscribe(None, node=node).subscription.strategy)
        harness.hub.add(subscription)
        subscription.go_live(None)
    publish(harness, 1)
    for _ in range(4):
        harness.run_turn()
    harness.publish_one(Publication(Raw(b"1"), None, 0, {"kind": "wanted"}), channel="elsewhere")
    for _ in range(12):
        harness.run_turn()
    assert harness.hub.fan_out.is_interrupted, "the long walk is not over"
    assert len(other.messages()) == len(plain.messages()) == 1
    harness.run_scheduled()
    assert not harness.hub.fan_out.is_interrupted


def test_long_batch_is_split() -> None:
    """A filter is evaluated for a bounded number of items in one step. Skipped items are counted over all parts."""
    harness = StrategyHarness(interrupted=True)
    early, plain = subscribe_many(harness, 2), harness.subscribe(StreamPosition(0, "e"))
    count = 2 * STRATEGY_BATCH_MAX + 5
    publish(harness, *range(1, count - 1))
    late = [harness.subscribe(StreamPosition(count - 2, "e"), node=node) for node in (WANTED, None)]
    without_position = harness.subscribe(None, node=WANTED)
    publish(harness, count - 1, count)
    harness.run_scheduled()
    assert all(reader.offsets() == list(range(1, count + 1)) for reader in (*early, plain))
    assert [reader.offsets() for reader in (*late, without_position)] == [[count - 1, count]] * 3
    sizes = [event.publications for event in harness.recorder.of(BatchFannedOut)]
    assert sizes == [STRATEGY_BATCH_MAX, STRATEGY_BATCH_MAX, 5]


def test_walk_is_finished_at_once_if_too_many_items_wait() -> None:
    """Publishers cannot get ahead of the walk without bound."""
    harness = StrategyHarness(interrupted=True)
    readers = subscribe_many(harness, 40)
    publish(harness, 1)
    harness.run_turn()
    publish(harness, *range(2, PENDING_ITEMS_MAX + 3))
    for _ in range(2):  # one of the turns is the flusher's
        harness.run_turn()
    assert harness.hub._channels["news"].walk is None
    harness.run_scheduled()
    assert all(reader.offsets() == list(range(1, PENDING_ITEMS_MAX + 3)) for reader in readers)


def test_error_in_a_walk_does_not_stop_the_channel() -> None:
    """The error is reported, and the next batch reaches every subscription."""

    class Broken(LineWire):
        def pack(self, payloads: object) -> bytes:
            packed = super().pack(payloads)  # type: ignore[arg-type]
            if self.packed == 1:
                raise ZeroDivisionError
            return packed

    harness = StrategyHarness(interrupted=True)
    harness.recorder.expects_errors = True
    harness.protobuf = Broken(harness.codec)
    readers = [
        harness.subscribe(None, node=WANTED),
        harness.subscribe(None, node=WANTED, binary=True),
        harness.subscribe(None, node=WANTED),
    ]
    for number in (1, 2):
        harness.publish(0, text(number), "wanted")
        harness.run_scheduled()
    assert [event.where for event in harness.recorder.of(InternalError)] == ["fan-out"]
    assert all(reader.received()[-1].data == text(2) for reader in readers)


def test_error_in_a_walk_does_not_stop_waiting_items() -> None:
    """Items that were published during the walk are delivered when the failed walk is over."""
    harness = StrategyHarness(interrupted=True)
    harness.recorder.expects_errors = True
    readers = subscribe_many(harness, 3)
    broken = readers[1].subscription
    strategy = broken.strategy
    harness.publish(0, text(1), "wanted")
    harness.run_turn()
    harness.publish(0, text(2), "wanted")
    broken.strategy = None  # type: ignore[assignment]  # every delivery to this subscription fails
    harness.run_turn()
    harness.run_turn()
    broken.strategy = strategy
    harness.run_scheduled()
    assert [event.where for event in harness.recorder.of(InternalError)] == ["fan-out"]
    assert [[publication.data for publication in reader.received()] for reader in readers] == [
        [text(1), text(2)],
        [text(2)],
        [text(2)],
    ]
