"""Which items of a batch a subscription is entitled to."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.pushes import JoinPush, LeavePush
from tests.unit.delivery.harness import WANTED, PlainHarness


def test_excluded_client_does_not_get_the_publication_and_its_position_advances(harness: PlainHarness) -> None:
    """The next publication is not a gap."""
    sender, subscription = harness.subscribe(top=0)
    other, _ = harness.subscribe(top=0)
    harness.publish(1, exclude=(sender.client,))
    harness.run_scheduled()
    assert (sender.data(), other.data()) == ([], [1])
    assert subscription.position == StreamPosition(1, "e")
    harness.publish(2, exclude=(sender.client,))
    harness.publish(3)
    harness.run_scheduled()
    assert (sender.data(), other.data()) == ([3], [1, 2, 3])
    assert sender.gaps == []


def test_joins_and_leaves_reach_subscriptions_that_receive_them(harness: PlainHarness) -> None:
    """They keep their place between publications, and move no position."""
    interested, subscription = harness.subscribe(top=0, receives_join_leave=True)
    plain, _ = harness.subscribe(top=0)
    info = ClientInfo("ann", "c9")
    harness.publish(1)
    harness.hub.announce(JoinPush("news", info))
    harness.publish(2)
    harness.hub.announce(LeavePush("news", info))
    harness.hub.announce(JoinPush("without subscribers", info))
    harness.run_scheduled()
    assert [next(kind for kind in ("pub", "join", "leave") if kind in m["push"]) for m in interested.messages()] == [
        "pub",
        "join",
        "pub",
        "leave",
    ]
    assert plain.data() == [1, 2]
    assert subscription.position == StreamPosition(2, "e")


def test_subscription_that_is_catching_up_holds_publications(harness: PlainHarness) -> None:
    """A publication that excludes the client moves only the position. Joins and leaves are not held."""
    subscriber = harness.new_subscriber()
    subscription = subscriber.subscription(receives_join_leave=True)
    harness.hub.add(subscription)
    harness.publish(1, 2)
    harness.hub.announce(JoinPush("news", ClientInfo("ann", "c9")))
    harness.run_scheduled()
    harness.publish(3, exclude=(subscriber.client,))
    harness.publish(4)
    harness.run_scheduled()
    assert subscriber.messages() == []
    merged = subscription.go_live(StreamPosition(1, "e"))
    assert [item.offset for item in merged] == [2, 4]


def test_held_publications_are_bounded(harness: PlainHarness) -> None:
    """Beyond the limit of the hub, the subscription cannot go live."""
    subscriber = harness.new_subscriber()
    subscription = subscriber.subscription()
    harness.hub.add(subscription)
    for offset in (1, 2, 3):
        harness.publish_one(Publication(Raw(b"x" * 4000), offset=offset), "e")
    harness.run_scheduled()
    with pytest.raises(Exception, match="too many"):
        subscription.go_live(StreamPosition(0, "e"))


def test_excluded_client_is_not_affected_by_an_undeliverable_payload(harness: PlainHarness) -> None:
    """A client that does not get the publication need not be able to decode it."""
    subscriber, _ = harness.subscribe(top=0)
    harness.publish_one(Publication(Raw(b"\xff"), offset=1), "e", (subscriber.client,))
    harness.publish(2)
    harness.run_scheduled()
    assert (subscriber.undeliverable, subscriber.data()) == (0, [2])


def test_publications_that_the_subscriber_has_are_skipped(harness: PlainHarness) -> None:
    """The rest of the batch is delivered."""
    subscriber, subscription = harness.subscribe(top=2)
    harness.publish(1, 2, 3, 4)
    harness.publish(4)
    harness.run_scheduled()
    assert subscriber.data() == [3, 4]
    assert subscription.position == StreamPosition(4, "e")


def test_publications_without_an_offset_move_no_position(harness: PlainHarness) -> None:
    """They are delivered alone in a batch or between publications with offsets."""
    subscriber, subscription = harness.subscribe(top=0)
    harness.publish(0)
    harness.run_scheduled()
    harness.publish(1, 0, 2)
    harness.run_scheduled()
    assert subscriber.data() == [0, 1, 0, 2]
    assert subscription.position == StreamPosition(2, "e")


def test_items_are_counted_by_their_outcome(harness: PlainHarness) -> None:
    """Delivered, or filtered. An excluded client counts as neither."""
    subscriber = harness.new_subscriber()
    strategy = harness.strategy(node=WANTED)
    subscription = subscriber.subscription("news", strategy)
    harness.hub.add(subscription)
    subscription.go_live(StreamPosition(0, "e"))
    for offset, kind, exclude in (
        (1, "wanted", ()),
        (2, "unwanted", ()),
        (3, "unwanted", ("c1",)),
        (4, "wanted", ("c1",)),
    ):
        harness.publish_one(Publication(Raw(b"1"), None, offset, {"kind": kind}), "e", exclude)
    harness.run_scheduled()
    statistics = harness.hub.statistics()
    assert (statistics.delivered_total, statistics.filtered_total) == (1, 1)
    assert subscription.position == StreamPosition(4, "e")
