"""Delivery of some items of a batch to one subscription."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.pushes import JoinPush, LeavePush
from tests.unit.delivery.harness import PlainHarness


def test_who_is_excluded_hears_nothing_and_moves_on(harness: PlainHarness) -> None:
    """Its position passes over the publication, so the next one is no hole."""
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


def test_announcements_reach_those_who_hear_them(harness: PlainHarness) -> None:
    """In their place between publications, and they move no position."""
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


def test_who_catches_up_gets_nothing_yet(harness: PlainHarness) -> None:
    """Publications are held, excluded ones for the position only, announcements not at all."""
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
    assert [publication.offset for publication in merged] == [2, 4]


def test_holding_is_bounded(harness: PlainHarness) -> None:
    """Beyond the hub's limit the subscription cannot go live."""
    subscriber = harness.new_subscriber()
    subscription = subscriber.subscription()
    harness.hub.add(subscription)
    for offset in (1, 2, 3):
        harness.hub.publish("news", Publication(Raw(b"x" * 4000), offset=offset), "e")
    harness.run_scheduled()
    with pytest.raises(Exception, match="too many"):
        subscription.go_live(StreamPosition(0, "e"))


def test_an_undeliverable_item_spares_those_who_do_not_get_it(harness: PlainHarness) -> None:
    """Whoever is excluded from it need not be able to read it."""
    subscriber, _ = harness.subscribe(top=0)
    harness.hub.publish("news", Publication(Raw(b"\xff"), offset=1), "e", (subscriber.client,))
    harness.publish(2)
    harness.run_scheduled()
    assert (subscriber.undeliverable, subscriber.data()) == (0, [2])


def test_a_batch_may_hold_offsets_a_subscriber_has(harness: PlainHarness) -> None:
    """Duplicates are dropped, the rest is delivered."""
    subscriber, subscription = harness.subscribe(top=2)
    harness.publish(1, 2, 3, 4)
    harness.publish(4)
    harness.run_scheduled()
    assert subscriber.data() == [3, 4]
    assert subscription.position == StreamPosition(4, "e")


def test_publications_without_history_pass_between_others(harness: PlainHarness) -> None:
    """They move no position, in a batch of their own or mixed with others."""
    subscriber, subscription = harness.subscribe(top=0)
    harness.publish(0)
    harness.run_scheduled()
    harness.publish(1, 0, 2)
    harness.run_scheduled()
    assert subscriber.data() == [0, 1, 0, 2]
    assert subscription.position == StreamPosition(2, "e")
