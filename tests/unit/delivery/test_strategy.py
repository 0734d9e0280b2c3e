"""Fan-out to subscriptions with filters and patches, together with subscriptions without a strategy."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from beaconfire.delivery.filtered import Filtered
from beaconfire.delivery.subscription import SubscriptionPhase
from beaconfire.delivery.tags_filter import Tags
from beaconfire.model.events import BatchFannedOut
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo
from beaconfire.model.pushes import JoinPush
from tests.unit.delivery.harness import WANTED, Reader, StrategyHarness, text

PUBLISH = st.tuples(
    st.just("publish"),
    st.sampled_from(["stream", "stream", "stream", "outside", "epoch"]),
    st.sampled_from(["wanted", "wanted", "unwanted"]),
    st.sampled_from([(), (), (), ("c1", "c3"), ("c2",)]),
    st.sampled_from([True, True, True, False]),
)
SUBSCRIBE = st.tuples(
    st.just("subscribe"), st.booleans(), st.sampled_from([True, True, False]), st.booleans(), st.booleans()
)
OTHER = st.one_of(
    st.tuples(
        st.sampled_from(["run_scheduled", "run_turn", "run_turn", "announce"]),
        st.none(),
        st.none(),
        st.none(),
        st.none(),
    ),
    st.tuples(st.just("unsubscribe"), st.integers(0, 5), st.none(), st.none(), st.none()),
)


@settings(max_examples=200)
@given(
    st.lists(SUBSCRIBE, min_size=2, max_size=4),
    st.lists(st.one_of(PUBLISH, PUBLISH, PUBLISH, SUBSCRIBE, OTHER, OTHER), min_size=5, max_size=40),
    st.booleans(),
)
def test_every_subscription_gets_what_it_wants_in_order(
    subscribes: list[tuple[Any, ...]], steps: list[tuple[Any, ...]], interrupted: bool
) -> None:
    """With both codecs, with and without positions, filters and patches: the right publications, unchanged."""
    operations = subscribes + steps
    harness = StrategyHarness(interrupted)
    offset, epoch, number = 0, 1, 0
    readers: list[tuple[Reader, list[tuple[bytes, int]]]] = []
    for operation, first, second, third, fourth in operations:
        if operation == "publish":
            number += 1
            if first == "epoch":
                epoch, offset = epoch + 1, 0
                for reader, _ in readers:  # a new epoch would be a gap for them
                    if reader.subscription.is_positioned:
                        harness.hub.remove(reader.subscription)
            offset += first != "outside"
            harness.publish(0 if first == "outside" else offset, text(number), second, f"e{epoch}", third, fourth)
            for reader, expected in readers:
                live = reader.subscription.phase is SubscriptionPhase.LIVE
                filtered = isinstance(reader.subscription.strategy, Filtered)
                if live and reader.subscriber.client not in third and (second == "wanted" or not filtered):
                    expected.append((text(number), 0 if first == "outside" else offset))
        elif operation == "subscribe":
            top = StreamPosition(offset, f"e{epoch}") if first else None
            readers.append((harness.subscribe(top, second, WANTED if third else None, fourth), []))
        elif operation == "run_scheduled":
            harness.run_scheduled()
        elif operation == "run_turn":
            harness.run_turn()
        elif operation == "announce":
            harness.hub.announce(JoinPush("news", ClientInfo("ann", "c9")))
        elif first < len(readers):
            harness.hub.remove(readers[first][0].subscription)
    harness.run_scheduled()
    for reader, expected in readers:
        assert reader.subscriber.gaps == []
        assert [(publication.data, publication.offset) for publication in reader.received()] == expected


def test_a_patch_is_encoded_once_per_wire() -> None:
    """Subscriptions with the same base share it. Subscriptions without patches share the whole publication."""
    harness = StrategyHarness()
    top = StreamPosition(0, "e")
    plain = [harness.subscribe(top) for _ in range(3)]
    patched = [harness.subscribe(top, deltas=True) for _ in range(3)]
    for offset in (1, 2):
        harness.publish(offset, text(offset))
        harness.run_scheduled()
    late = harness.subscribe(StreamPosition(2, "e"), deltas=True)
    harness.publish(3, text(3))
    harness.run_scheduled()
    assert harness.counting_codec.encoded == 3 + 3 + 1, (
        "whole, as patches (the first as a string), and whole for the late one"
    )
    assert all(
        [publication.data for publication in reader.received()] == [text(1), text(2), text(3)]
        for reader in plain + patched
    )
    assert [publication.patched for publication in patched[0].received()] == [False, True, True]
    assert [publication.patched for publication in late.received()] == [False]
    assert harness.hub.statistics().patches_total == 6


def test_equal_filters_are_evaluated_once_per_publication() -> None:
    """The number of subscriptions and their codecs do not matter."""
    harness = StrategyHarness()
    evaluated: list[object] = []

    def record(tags: Tags) -> bool:
        evaluated.append(tags)
        return passes(tags)

    readers = [harness.subscribe(None, node=WANTED, binary=binary) for binary in (False, False, True)]
    strategy = readers[0].subscription.strategy
    assert isinstance(strategy, Filtered)
    passes = strategy.tags_filter._predicate
    strategy.tags_filter._predicate = record
    try:
        harness.publish(0, text(1), "wanted")
        harness.publish(0, text(2), "unwanted")
        harness.run_scheduled()
    finally:
        strategy.tags_filter._predicate = passes
    assert len(evaluated) == 2
    assert all([publication.data for publication in reader.received()] == [text(1)] for reader in readers)
    assert harness.hub.statistics().filtered_total == 3


def test_subscriptions_with_a_strategy_are_counted_and_found() -> None:
    """They are also listed and removed, and the channel ends with the last one."""
    harness = StrategyHarness()
    plain, filtered = harness.subscribe(None), harness.subscribe(None, node=WANTED)
    hub = harness.hub
    assert (hub.count("news"), list(hub.channels())) == (2, [("news", 2)])
    assert hub.subscribers("news") == [plain.subscription, filtered.subscription]
    assert hub.find("news", "c2") is filtered.subscription
    harness.publish(0, text(1))
    harness.run_scheduled()
    assert [event.subscribers for event in harness.recorder.of(BatchFannedOut)] == [2]
    assert hub.remove(filtered.subscription) is False
    assert hub.remove(plain.subscription) is True
    assert hub.find("news", "c2") is None


def test_latest_publication_is_kept_only_for_subscriptions_with_a_strategy() -> None:
    """A channel without them keeps no publication."""
    harness = StrategyHarness()
    harness.subscribe(None)
    patched = harness.subscribe(None, deltas=True)
    harness.publish(0, text(1))
    local = harness.hub._channels["news"]
    kept = [local.latest is not None]
    harness.hub.remove(patched.subscription)
    kept.append(local.latest is not None)
    harness.publish(0, text(2))
    kept.append(local.latest is not None)
    assert kept == [True, False, False]
