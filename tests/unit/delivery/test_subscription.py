"""Recovery of one subscription: hold, merge, and the checks of a live subscription."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.delivery.channel import LocalChannel
from beaconfire.delivery.item import Item
from beaconfire.delivery.outbox import Flusher
from beaconfire.delivery.subscription import ANY, HELD, HELD_ITEM_BYTES, Gap, Subscription, SubscriptionPhase
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.transports.socket_writes import send_all
from tests.fakes.transport import LineWire
from tests.unit.delivery.harness import FakeSubscriber


def at(offset: int, data: str = "x", previous: int | None = None, epoch: str = "e") -> Item:
    """A publication. Its predecessor has the offset before it unless `previous` says otherwise."""
    push = PublicationPush("news", Publication(Raw(data.encode()), offset=offset))
    return Item(push, offset, offset - 1 if previous is None else previous, epoch if offset else "", (), 0)


def new_subscription() -> Subscription:
    flusher = Flusher(lambda call: None, ManualClock().now_s, send_all)
    return FakeSubscriber("c1", flusher, LineWire(JsonCodec())).subscription()


def hold(subscription: Subscription, *offsets: int, epoch: str = "e", delivered: bool = True) -> None:
    for offset in offsets:
        subscription.hold(at(offset, epoch=epoch), delivered, limit_bytes=10_000)


def offsets(items: list[Item]) -> list[int]:
    return [item.offset for item in items]


# --- hold and merge


@pytest.mark.parametrize(
    ("held", "top", "sent"),
    [
        ((), 5, []),
        ((6, 7), 5, [6, 7]),
        ((4, 5, 6), 5, [6]),
        ((4, 5), 5, []),
        ((6, 6, 7), 5, [6, 7]),
        ((1,), 0, [1]),
        ((5, 6), 9, []),
    ],
)
def test_merge_drops_publications_that_history_contains(held: tuple[int, ...], top: int, sent: list[int]) -> None:
    """Publications after the top are returned once each, and the position is that of the last one."""
    subscription = new_subscription()
    hold(subscription, *held)
    assert offsets(subscription.go_live(StreamPosition(top, "e"))) == sent
    assert subscription.phase is SubscriptionPhase.LIVE
    assert subscription.position == StreamPosition(sent[-1] if sent else top, "e")


@pytest.mark.parametrize("held", [(7,), (6, 8), (5, 7)])
def test_merge_raises_gap_for_a_missing_offset(held: tuple[int, ...]) -> None:
    """The subscription then stays in the phase CATCHING_UP."""
    subscription = new_subscription()
    hold(subscription, *held)
    with pytest.raises(Gap):
        subscription.go_live(StreamPosition(5, "e"))
    assert subscription.phase is SubscriptionPhase.CATCHING_UP
    assert subscription.seen == HELD


@pytest.mark.parametrize("offset", [3, 6])
def test_merge_raises_gap_for_another_epoch(offset: int) -> None:
    """The offset alone may be one that is dropped, but it belongs to another stream."""
    subscription = new_subscription()
    hold(subscription, offset, epoch="other")
    with pytest.raises(Gap, match="epoch"):
        subscription.go_live(StreamPosition(5, "e"))


def test_merge_keeps_publications_without_an_offset() -> None:
    """They keep their place among the others."""
    subscription = new_subscription()
    hold(subscription, 0, 6, 0)
    assert offsets(subscription.go_live(StreamPosition(5, "e"))) == [0, 6, 0]
    assert subscription.seen == 6


def test_excluded_publications_move_the_position() -> None:
    """A held publication that is not delivered only moves the position."""
    subscription = new_subscription()
    hold(subscription, 6, delivered=False)
    hold(subscription, 7)
    hold(subscription, 0, delivered=False)
    assert offsets(subscription.go_live(StreamPosition(5, "e"))) == [7]
    assert subscription.seen == 7


def test_page_must_be_read_again_if_what_was_announced_does_not_continue_from_it() -> None:
    """The link was lost during the read. Nothing changes, so a later page can be accepted.

    What the hub has not handed over yet counts, but not what was there before the subscription.
    """
    subscription, local = new_subscription(), LocalChannel("")
    assert subscription.place(StreamPosition(4, "e")), "it is in no channel any more"
    local.pending = [at(3)]
    local.add(subscription)
    assert subscription.place(StreamPosition(4, "e"))
    assert local.announced == StreamPosition(4, "e")
    hold(subscription, 6, 7)
    assert not subscription.place(StreamPosition(4, "e"))
    assert not subscription.place(StreamPosition(6, "other"))
    assert subscription.place(StreamPosition(6, "e"))
    local.pending.append(Item(PublicationPush("news", Publication(Raw(b"1"), offset=9)), 9, 8, "e", (), 1))
    assert not subscription.place(StreamPosition(6, "e"))
    assert subscription.place(StreamPosition(8, "e"))
    subscription.mark_gap()
    assert subscription.place(StreamPosition(1, "e")), "going live fails anyway"


def test_subscription_without_a_position_returns_every_held_publication() -> None:
    """There is no top to compare with. Afterwards every offset is accepted."""
    subscription = new_subscription()
    hold(subscription, 3, 9, 0)
    hold(subscription, 10, delivered=False)
    assert offsets(subscription.go_live(None)) == [3, 9, 0]
    assert subscription.seen == ANY
    assert subscription.position is None


LIMIT = 10 + 2 * HELD_ITEM_BYTES
"""Room for two publications with ten bytes between them."""


def test_too_many_held_bytes_are_a_gap() -> None:
    """Memory is bounded while catching up, and dropped publications are reported."""
    subscription = new_subscription()
    subscription.hold(at(6, "12345"), True, limit_bytes=LIMIT)
    subscription.hold(at(7, "67890"), True, limit_bytes=LIMIT)
    subscription.hold(at(8, "x"), True, limit_bytes=LIMIT)
    subscription.hold(at(9, "y"), True, limit_bytes=LIMIT)
    with pytest.raises(Gap):
        subscription.go_live(StreamPosition(5, "e"))
    exact = new_subscription()
    exact.hold(at(6, "1234567890"), True, limit_bytes=10 + HELD_ITEM_BYTES)
    assert offsets(exact.go_live(StreamPosition(5, "e"))) == [6]


@pytest.mark.parametrize("top", [None, StreamPosition(5, "e")])
def test_subscription_with_a_gap_or_an_end_cannot_go_live(top: StreamPosition | None) -> None:
    """`go_live` raises Gap with and without a position."""
    with_gap, ended = new_subscription(), new_subscription()
    with_gap.mark_gap()
    hold(with_gap, 6)
    ended.end()
    for subscription in (with_gap, ended):
        with pytest.raises(Gap):
            subscription.go_live(top)
        assert subscription.phase is not SubscriptionPhase.LIVE


# --- live


def live(top: int = 5) -> Subscription:
    subscription = new_subscription()
    subscription.go_live(StreamPosition(top, "e"))
    return subscription


def test_live_subscription_accepts_only_the_next_offset() -> None:
    """An earlier offset is a duplicate, a later one is a gap."""
    subscription = live()
    assert subscription.advance(at(6))
    assert not subscription.advance(at(6))
    assert not subscription.advance(at(1))
    assert subscription.position == StreamPosition(6, "e")
    with pytest.raises(Gap):
        subscription.advance(at(8))


def test_live_subscription_raises_gap_for_another_epoch() -> None:
    """The offset may be the expected one, or an older one."""
    for offset in (6, 1):
        with pytest.raises(Gap, match="epoch"):
            live().advance(at(offset, epoch="other"))


def test_ended_subscription_has_no_position() -> None:
    """The hub delivers nothing to it."""
    subscription = live()
    subscription.end()
    assert (subscription.phase, subscription.seen, subscription.position) == (SubscriptionPhase.ENDED, HELD, None)


# --- streams whose offsets do not rise by one


def test_publication_is_accepted_if_its_predecessor_was_seen() -> None:
    """Whatever its offset is. A later predecessor is a gap, and an offset that was seen is a duplicate."""
    subscription = live(5)
    assert subscription.advance(at(9, previous=5))
    assert not subscription.advance(at(9, previous=5))
    assert subscription.position == StreamPosition(9, "e")
    with pytest.raises(Gap, match="predecessor 11"):
        subscription.advance(at(12, previous=11))


def test_predecessor_may_be_older_than_the_position() -> None:
    """The position of a client may be directly before the publication, if a reader does not know the predecessor."""
    subscription = live(8)
    assert subscription.advance(at(9, previous=5))
    assert subscription.position == StreamPosition(9, "e")


def test_position_that_the_stream_leaps_over_is_a_gap() -> None:
    """The engine has lost the publication at this position."""
    with pytest.raises(Gap, match="has lost offset 7: 9 follows 5"):
        live(7).advance(at(9, previous=5))


def test_merge_follows_predecessors() -> None:
    """Held publications continue from the top of the stream, although offsets are left out."""
    subscription = new_subscription()
    for item in (at(4, previous=2), at(7, previous=4), at(0), at(12, previous=7)):
        subscription.hold(item, True, limit_bytes=10_000)
    assert offsets(subscription.go_live(StreamPosition(4, "e"))) == [7, 0, 12]
    assert subscription.position == StreamPosition(12, "e")


def test_merge_raises_gap_for_a_missing_predecessor() -> None:
    """The offset of the publication alone does not show that one is missing."""
    subscription = new_subscription()
    subscription.hold(at(7, previous=6), True, limit_bytes=10_000)
    with pytest.raises(Gap, match="predecessor 6"):
        subscription.go_live(StreamPosition(5, "e"))
