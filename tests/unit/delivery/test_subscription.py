"""The recovery machine: hold, merge, watch; and "what did I miss?" (section 10 of the protocol reference)."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.delivery.outbox import Flusher
from beaconfire.delivery.subscription import (
    ANY,
    HELD,
    HELD_ITEM_BYTES,
    Gap,
    Subscription,
    SubscriptionPhase,
)
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.transports.socket_writes import send_all
from tests.fakes.transport import LineWire
from tests.unit.delivery.harness import FakeSubscriber


def at(offset: int, data: str = "x") -> Publication:
    return Publication(Raw(data.encode()), offset=offset)


def new_subscription() -> Subscription:
    flusher = Flusher(lambda call: None, ManualClock().now_s, send_all)
    return FakeSubscriber("c1", flusher, LineWire(JsonCodec())).subscription()


def hold(subscription: Subscription, *offsets: int, epoch: str = "e", delivered: bool = True) -> None:
    for offset in offsets:
        subscription.hold(at(offset), epoch if offset else "", delivered, limit_bytes=10_000)


def offsets(publications: list[Publication]) -> list[int]:
    return [publication.offset for publication in publications]


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
def test_merging_drops_what_history_had(held: tuple[int, ...], top: int, sent: list[int]) -> None:
    """What comes after the top goes out, each once, and the next offset is expected after it."""
    subscription = new_subscription()
    hold(subscription, *held)
    assert offsets(subscription.go_live(StreamPosition(top, "e"))) == sent
    assert subscription.phase is SubscriptionPhase.LIVE
    assert subscription.position == StreamPosition(sent[-1] if sent else top, "e")


@pytest.mark.parametrize("held", [(7,), (6, 8), (5, 7)])
def test_merging_refuses_a_hole(held: tuple[int, ...]) -> None:
    """An offset that should have come is missing: the subscription stays held."""
    subscription = new_subscription()
    hold(subscription, *held)
    with pytest.raises(Gap):
        subscription.go_live(StreamPosition(5, "e"))
    assert subscription.phase is SubscriptionPhase.CATCHING_UP
    assert subscription.expected == HELD


@pytest.mark.parametrize("offset", [3, 6])
def test_merging_refuses_a_foreign_epoch(offset: int) -> None:
    """Even where the offset alone would be dropped: it counts in another stream."""
    subscription = new_subscription()
    hold(subscription, offset, epoch="other")
    with pytest.raises(Gap, match="epoch"):
        subscription.go_live(StreamPosition(5, "e"))


def test_merging_keeps_what_has_no_place_in_the_order() -> None:
    """Publications without history are delivered where they came."""
    subscription = new_subscription()
    hold(subscription, 0, 6, 0)
    assert offsets(subscription.go_live(StreamPosition(5, "e"))) == [0, 6, 0]
    assert subscription.expected == 7


def test_an_excluded_subscriber_is_moved_over_what_it_does_not_get() -> None:
    """Held or not, its position is that of everybody."""
    subscription = new_subscription()
    hold(subscription, 6, delivered=False)
    hold(subscription, 7)
    hold(subscription, 0, delivered=False)
    assert offsets(subscription.go_live(StreamPosition(5, "e"))) == [7]
    assert subscription.expected == 8


def test_without_a_position_everything_held_goes_out() -> None:
    """There is no top to compare with, and afterwards everything is welcome."""
    subscription = new_subscription()
    hold(subscription, 3, 9, 0)
    hold(subscription, 10, delivered=False)
    assert offsets(subscription.go_live(None)) == [3, 9, 0]
    assert subscription.expected == ANY
    assert subscription.position is None


LIMIT = 10 + 2 * HELD_ITEM_BYTES
"""Room for two publications with ten bytes between them."""


def test_too_much_to_hold_is_a_gap() -> None:
    """Memory is bounded while catching up; what was dropped is not glossed over."""
    subscription = new_subscription()
    subscription.hold(at(6, "12345"), "e", True, limit_bytes=LIMIT)
    subscription.hold(at(7, "67890"), "e", True, limit_bytes=LIMIT)
    subscription.hold(at(8, "x"), "e", True, limit_bytes=LIMIT)
    subscription.hold(at(9, "y"), "e", True, limit_bytes=LIMIT)
    with pytest.raises(Gap):
        subscription.go_live(StreamPosition(5, "e"))
    exact = new_subscription()
    exact.hold(at(6, "1234567890"), "e", True, limit_bytes=10 + HELD_ITEM_BYTES)
    assert offsets(exact.go_live(StreamPosition(5, "e"))) == [6]


@pytest.mark.parametrize("top", [None, StreamPosition(5, "e")])
def test_one_that_was_with_gap_or_ended_cannot_go_live(top: StreamPosition | None) -> None:
    """Whether it watches its position or not: something was missed, or it is over."""
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


def test_live_offsets_must_follow_one_another() -> None:
    """The next one is taken, an earlier one was had already, a later one is a gap."""
    subscription = live()
    assert subscription.advance(6, "e")
    assert not subscription.advance(6, "e")
    assert not subscription.advance(1, "e")
    assert subscription.position == StreamPosition(6, "e")
    with pytest.raises(Gap):
        subscription.advance(8, "e")


def test_a_live_subscription_refuses_a_foreign_epoch() -> None:
    """Also with the very offset that is expected, and with an older one."""
    for offset in (6, 1):
        with pytest.raises(Gap, match="epoch"):
            live().advance(offset, "other")


def test_the_end_expects_nothing() -> None:
    """The hub delivers to it no more, and it stands nowhere."""
    subscription = live()
    subscription.end()
    assert (subscription.phase, subscription.expected, subscription.position) == (SubscriptionPhase.ENDED, HELD, None)


def test_a_check_tolerates_what_is_on_its_way() -> None:
    """Falling behind counts only if the position has not reached what the check before saw."""
    subscription = live(5)
    subscription.check(StreamPosition(7, "e"))
    subscription.advance(6, "e")
    subscription.advance(7, "e")
    subscription.check(StreamPosition(9, "e"))
    subscription.advance(8, "e")
    with pytest.raises(Gap, match="offset 9 never came"):
        subscription.check(StreamPosition(9, "e"))


def test_a_check_finds_a_stream_that_began_anew() -> None:
    """Its epoch tells at once."""
    with pytest.raises(Gap, match="epoch"):
        live(5).check(StreamPosition(5, "other"))


def test_a_check_of_an_idle_stream_finds_nothing() -> None:
    """However often, from the very beginning of a stream on."""
    for top in (0, 5):
        subscription = live(top)
        for _ in range(3):
            subscription.check(StreamPosition(top, "e"))
