"""One channel: its subscriptions, its position, and its latest publication."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.delivery.batch import Batch
from beaconfire.delivery.channel import STRATEGY_BATCH_MAX, UNKNOWN_EPOCH, LocalChannel, Walk
from beaconfire.delivery.item import Item
from beaconfire.delivery.subscription import NEVER
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush
from tests.unit.delivery.harness import WANTED, PlainHarness, StrategyHarness


def item(number: int) -> Item:
    return Item(PublicationPush("news", Publication(Raw(b"1"), offset=number)), number, number - 1, "e", (), 9)


def channel(count: int, with_strategy: bool = False) -> LocalChannel:
    """A channel with subscriptions that are numbered from 1."""
    local, harness = LocalChannel(""), StrategyHarness()
    for _ in range(count):
        strategy = harness.strategy(node=WANTED if with_strategy else None)
        local.add(harness.new_subscriber().subscription("news", strategy))
    return local


@pytest.mark.parametrize("with_strategy", [False, True])
def test_subscriptions_are_numbered_in_the_order_of_their_joins(with_strategy: bool) -> None:
    """A number is not used again. Only a plain subscription may get whole batches."""
    local = channel(3, with_strategy)
    first, second, _ = local.subscriptions.values()
    local.remove(second)
    again = second.owner.subscription("news", second.strategy)  # type: ignore[attr-defined]
    local.add(again)
    assert [subscription.number for subscription in local.subscriptions.values()] == [1, 3, 4]
    assert (local.numbers, local.strategies) == (4, 3 if with_strategy else 0)
    assert first.whole_number == (NEVER if with_strategy else 1)
    assert (first.local, second.local) == (local, None)


def test_undelivered_is_what_the_walk_has_not_reached_and_what_is_pending() -> None:
    """For the subscriptions that were there before each item."""
    local = channel(3)
    subscriptions = list(local.subscriptions.values())
    local.walk = Walk(Batch([item(1)]), subscriptions[1:], 1, 3, 0.0)
    local.pending = [item(2), Item(PublicationPush("news", Publication(Raw(b"1"), offset=3)), 3, 2, "e", (), 2)]
    assert [[each.offset for each in local.undelivered(subscription)] for subscription in subscriptions] == [
        [2, 3],
        [1, 2, 3],
        [1, 2],
    ]
    local.walk = None
    assert [each.offset for each in local.undelivered(subscriptions[1])] == [2, 3]


def test_latest_publication_is_kept_while_a_subscription_has_a_strategy() -> None:
    """It is dropped with the last of these subscriptions."""
    local = channel(2, with_strategy=True)
    first, second = local.subscriptions.values()
    kept = []
    for leave in (None, first, second):
        if leave is not None:
            local.remove(leave)
        local.note(Publication(Raw(b"1")), "")
        kept.append(local.latest is not None)
    assert kept == [True, True, False]


def test_previous_publication_is_of_the_same_epoch() -> None:
    """A publication without an offset is in no epoch, and is the previous one of the next publication."""
    local = channel(1, with_strategy=True)
    publications = [Publication(Raw(b"1"), offset=offset) for offset in (1, 2, 0, 1)]
    previous = [
        local.note(publication, epoch) for publication, epoch in zip(publications, ("e", "e", "", "f"), strict=True)
    ]
    assert previous == [None, publications[0], publications[1], None]


def test_previous_publication_is_not_of_an_epoch_before_a_recovery() -> None:
    """The position of the channel moved to the new epoch with the subscription that recovered. The offsets of the old
    epoch would name other publications."""
    local = channel(1, with_strategy=True)
    local.note(Publication(Raw(b"1"), offset=3), "old")
    local.announced_offset = None  # as after a gap
    local.on_read(StreamPosition(3, "new"))
    assert local.note(Publication(Raw(b"2"), offset=4), "new") is None


def test_batch_takes_all_pending_items_unless_a_subscription_has_a_strategy() -> None:
    """Then the number of items is limited, and the rest stays pending."""
    count = STRATEGY_BATCH_MAX + 5
    for with_strategy, size in ((False, count), (True, STRATEGY_BATCH_MAX)):
        local = channel(1, with_strategy)
        local.pending = [item(number) for number in range(1, count + 1)]
        batch = local.take_batch()
        taken = [entry.offset for entry in batch.items]
        assert len(taken) == size
        assert taken + [entry.offset for entry in local.pending] == list(range(1, count + 1))


def test_walk_visits_those_who_were_there_and_were_not_visited() -> None:
    """Neither a subscription that was visited, nor one that joined later."""
    local = channel(5)
    subscriptions = list(local.subscriptions.values())
    walk = Walk(Batch([item(1)]), subscriptions[2:4], 2, 4, 0.0)
    assert [walk.is_to_visit(subscription) for subscription in subscriptions] == [False, False, True, True, False]


# --- the position that the channel has announced


def test_announced_position_is_that_of_the_last_stored_publication() -> None:
    """A publication without an offset does not move it. The position is dropped with the channel."""
    harness = PlainHarness()
    announced = [harness.hub.announced("news")]
    _, subscription = harness.subscribe()
    announced.append(harness.hub.announced("news"))
    for offset, epoch in ((7, "e"), (0, ""), (9, "e"), (1, "f")):
        harness.publish(offset, epoch=epoch)
        announced.append(harness.hub.announced("news"))
    harness.hub.remove(subscription)
    announced.append(harness.hub.announced("news"))
    assert announced == [None, None, (7, "e"), (7, "e"), (9, "e"), (1, "f"), None]


def test_first_position_of_a_channel_is_the_top_when_a_subscription_goes_live() -> None:
    """A later subscription does not move it, and a subscription without a position does not set it."""
    harness = PlainHarness()
    tops: tuple[int | None, ...] = (None, 5, 8)
    announced = []
    for top in tops:
        harness.subscribe(top)
        announced.append(harness.hub.announced("news"))
    harness.publish(6)
    announced.append(harness.hub.announced("news"))
    harness.subscribe(6)
    announced.append(harness.hub.announced("news"))
    assert announced == [None, (5, "e"), (5, "e"), (6, "e"), (6, "e")]


def test_position_of_a_channel_is_the_lowest_at_which_a_subscription_went_live() -> None:
    """The second subscription has read history before the first one. If the publications in between were lost with
    the link, a comparison with the stream must find that they are missing."""
    harness = PlainHarness()
    announced = []
    for top in (8, 5):
        harness.subscribe(top)
        announced.append(harness.hub.announced("news"))
    harness.publish(7)
    harness.subscribe(6)
    announced.append(harness.hub.announced("news"))
    assert announced == [(8, "e"), (5, "e"), (7, "e")]


def test_a_live_subscription_does_not_move_the_channel_behind_what_the_hub_was_given() -> None:
    """What is pending is not missing. With another epoch, the channel must be compared with its stream."""
    local = channel(1)
    local.on_read(StreamPosition(9, "e"))
    local.note(Publication(Raw(b"1"), offset=7), "e")
    local.on_read(StreamPosition(4, "e"))
    assert local.announced == (7, "e")
    local.on_read(StreamPosition(2, "f"))
    assert local.announced == (7, UNKNOWN_EPOCH)
