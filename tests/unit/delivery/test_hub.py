"""The table of subscriptions, and fan-out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec import Raw

from beaconfire.delivery.fan_out import DIRECT_SUBSCRIBERS_MAX, FanOut
from beaconfire.delivery.subscription import Subscription, SubscriptionPhase
from beaconfire.model.events import BatchFannedOut, InternalError
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush
from beaconfire.protocols.centrifuge.protobuf_codec import ProtobufCodec
from tests.fakes.transport import LineWire
from tests.unit.delivery.harness import FakeSubscriber, PlainHarness

# --- membership


def test_channel_exists_while_it_has_subscribers(harness: PlainHarness) -> None:
    """The first subscription creates the channel, and the last one removes it.

    `remove` says when a channel is removed.
    """
    hub = harness.hub
    _, first = harness.subscribe()
    _, second = harness.subscribe()
    assert hub.has_subscribers("news")
    assert (hub.count("news"), list(hub.channels())) == (2, [("news", 2)])
    assert hub.remove(first) is False
    assert hub.subscribers("news") == [second]
    assert hub.remove(second) is True
    assert not hub.has_subscribers("news")
    assert (hub.count("news"), hub.subscribers("news"), list(hub.channels())) == (0, [], [])
    assert (hub.statistics().channels, hub.statistics().subscriptions) == (0, 0)


def test_removing_is_idempotent(harness: PlainHarness) -> None:
    """A second removal changes nothing, even if the client has a new subscription."""
    subscriber, subscription = harness.subscribe()
    assert harness.hub.remove(subscription) is True
    assert harness.hub.remove(subscription) is False
    again = subscriber.subscription()
    harness.hub.add(again)
    assert harness.hub.remove(subscription) is False
    assert harness.hub.subscribers("news") == [again]
    assert harness.hub.statistics().subscriptions == 1


def test_removed_subscription_has_ended(harness: PlainHarness) -> None:
    """It cannot go live again."""
    _, subscription = harness.subscribe()
    harness.hub.remove(subscription)
    assert subscription.phase is SubscriptionPhase.ENDED


def test_second_subscription_of_a_client_fails_an_assertion(harness: PlainHarness) -> None:
    """The caller must not add it."""
    subscriber, _ = harness.subscribe()
    with pytest.raises(AssertionError):
        harness.hub.add(subscriber.subscription())


# --- fan-out


def test_publications_of_one_turn_are_one_batch(harness: PlainHarness) -> None:
    """A subscriber gets them in order, in one write."""
    subscriber, _ = harness.subscribe(top=0)
    harness.publish(1, 2, 3)
    assert subscriber.messages() == []
    harness.run_scheduled()
    assert subscriber.data() == [1, 2, 3]
    assert len(subscriber.transport.writes) == 1
    assert harness.recorder.of(BatchFannedOut) == [BatchFannedOut("", 3, 1, 0.0)]
    assert harness.hub.statistics().delivered_total == 3


def test_publication_is_encoded_once_per_codec(harness: PlainHarness) -> None:
    """The number of subscribers, their positions and their selections do not matter."""
    subscribers = [harness.subscribe(top)[0] for top in (None, 0, 0, None)]
    late, _ = harness.subscribe(top=1)
    harness.publish(1, 2)
    harness.run_scheduled()
    assert [subscriber.data() for subscriber in subscribers] == [[1, 2]] * 4
    assert late.data() == [2]
    assert harness.counting_codec.encoded == 2
    assert harness.wire.packed == 2, "the whole batch, and the selection of the late subscriber"


def test_each_wire_has_its_own_encoding(harness: PlainHarness) -> None:
    """Clients with different codecs get the same publication, each in its encoding."""
    json_subscriber, _ = harness.subscribe(top=0)
    protobuf_subscriber = FakeSubscriber("p", harness.flusher, LineWire(ProtobufCodec()))
    subscription = protobuf_subscriber.subscription()
    harness.hub.add(subscription)
    subscription.go_live(StreamPosition(0, "e"))
    harness.publish(1)
    harness.run_scheduled()
    assert json_subscriber.data() == [1]
    push = PublicationPush("news", Publication(Raw(b"1"), offset=1))
    assert b"".join(protobuf_subscriber.transport.writes) == ProtobufCodec().encode_push(push).data + b"\n"


def test_publication_reaches_only_the_subscribers_of_its_channel(harness: PlainHarness) -> None:
    """A publication in a channel without subscribers is dropped."""
    news, _ = harness.subscribe(channel="news")
    sport, _ = harness.subscribe(channel="sport")
    harness.publish(0, channel="sport")
    harness.publish(0, channel="without subscribers")
    harness.run_scheduled()
    assert (news.data(), sport.data()) == ([], [0])


def test_new_subscription_does_not_get_pending_items(harness: PlainHarness) -> None:
    """Only the subscriptions that existed before get them."""
    early, _ = harness.subscribe()
    harness.publish(0)
    late, _ = harness.subscribe()
    assert harness.hub.count("news") == 2
    harness.run_scheduled()
    assert (early.data(), late.data()) == ([0], [])


def test_removed_subscription_gets_pending_items(harness: PlainHarness) -> None:
    """It gets nothing that is published afterwards."""
    subscriber, subscription = harness.subscribe(top=0)
    other, _ = harness.subscribe(top=0)
    harness.publish(1)
    harness.hub.remove(subscription)
    harness.publish(2)
    harness.run_scheduled()
    assert (subscriber.data(), other.data()) == ([1], [1, 2])


@pytest.mark.parametrize("offsets", [(2,), (1, 3), (1, 2, 4)])
def test_missing_offset_ends_only_subscriptions_with_a_position(
    harness: PlainHarness, offsets: tuple[int, ...]
) -> None:
    """The gap is reported once, and they get nothing of the batch.

    A subscription without a position gets everything.
    """
    positioned, subscription = harness.subscribe(top=0)
    unpositioned, _ = harness.subscribe()
    harness.publish(*offsets)
    harness.run_scheduled()
    assert len(positioned.gaps) == 1
    assert subscription.phase is SubscriptionPhase.ENDED
    assert positioned.messages() == []
    assert unpositioned.data() == list(offsets)
    harness.publish(offsets[-1] + 1)
    harness.run_scheduled()
    assert positioned.messages() == []
    assert len(positioned.gaps) == 1, "the gap is reported once"


def test_another_epoch_ends_subscriptions_with_a_position(harness: PlainHarness) -> None:
    """The expected offset does not help, nor does it matter where in its batch the publication is."""
    alone, _ = harness.subscribe(top=0)
    harness.publish(1, epoch="other")
    harness.run_scheduled()
    assert (len(alone.gaps), alone.messages()) == (1, [])
    mixed, _ = harness.subscribe(top=0)
    harness.publish(1)
    harness.publish(2, epoch="other")
    harness.run_scheduled()
    assert len(mixed.gaps) == 1


def test_payload_that_is_not_json_is_reported_for_json_clients_only(harness: PlainHarness) -> None:
    """A Protobuf client in the same channel gets the bytes."""
    first, _ = harness.subscribe(top=0)
    second, _ = harness.subscribe()
    binary = FakeSubscriber("p", harness.flusher, LineWire(ProtobufCodec()))
    subscription = binary.subscription()
    harness.hub.add(subscription)
    subscription.go_live(StreamPosition(0, "e"))
    harness.publish_one(Publication(Raw(b"\xff\x00"), offset=1), "e")
    harness.run_scheduled()
    assert (first.undeliverable, second.undeliverable, binary.undeliverable) == (1, 1, 0)
    assert b"\xff\x00" in b"".join(binary.transport.writes)


def test_callbacks_may_subscribe_unsubscribe_and_publish(harness: PlainHarness) -> None:
    """They run after the walk over the subscriptions, so other subscribers are not affected."""
    removed, subscription = harness.subscribe(top=5)
    other, _ = harness.subscribe(top=0)

    def subscribe_again(ended: Subscription) -> None:
        harness.hub.remove(ended)
        harness.publish(2)
        again = removed.subscription()
        harness.hub.add(again)
        again.go_live(StreamPosition(2, "e"))

    removed.react = subscribe_again
    harness.publish(1, epoch="e")
    subscription.epoch = "another"
    harness.run_scheduled()
    harness.publish(3)
    harness.run_scheduled()
    assert other.data() == [1, 2, 3]
    assert removed.data() == [3]


def test_gap_during_removal_removes_the_subscription_once(harness: PlainHarness) -> None:
    """The pending items end the subscription that is being removed. The callback removes it as well."""
    subscriber, subscription = harness.subscribe(top=0)

    def unsubscribe(ended: Subscription) -> None:
        harness.hub.remove(ended)

    subscriber.react = unsubscribe
    harness.publish(7)
    harness.hub.remove(subscription)
    assert not harness.hub.has_subscribers("news")
    assert harness.hub.statistics().subscriptions == 0
    harness.run_scheduled()
    assert subscriber.messages() == []


def test_new_subscription_stays_if_all_others_end(harness: PlainHarness) -> None:
    """A subscription that is added before the last other one ends with a gap stays in the channel."""
    gap_subscriber = harness.new_subscriber()
    lost = gap_subscriber.subscription()
    harness.hub.add(lost)
    lost.go_live(StreamPosition(1, "e"))
    harness.publish(9)  # a gap, which ends the subscription on the next turn
    new_subscriber = harness.new_subscriber()
    joined = new_subscriber.subscription()
    harness.hub.add(joined)
    joined.go_live(None)
    harness.run_scheduled()
    harness.hub.remove(lost)
    harness.publish(10)
    harness.run_scheduled()
    assert harness.hub.count("news") == 1
    assert [message["push"]["pub"]["offset"] for message in new_subscriber.messages()] == [10]


def test_adding_a_subscription_does_not_flush_pending_items(harness: PlainHarness) -> None:
    """The old subscription gets all items on the next turn, the new one only the items after it was added."""
    early, late = harness.new_subscriber(), harness.new_subscriber()
    first, second = early.subscription(), late.subscription()
    harness.hub.add(first)
    first.go_live(None)
    harness.publish(1, 2)
    harness.hub.add(second)
    second.go_live(None)
    harness.publish(3)
    assert early.messages() == []
    harness.run_scheduled()
    assert [m["push"]["pub"]["offset"] for m in early.messages()] == [1, 2, 3]
    assert [m["push"]["pub"]["offset"] for m in late.messages()] == [3]


def test_error_in_one_channel_does_not_stop_the_others(harness: PlainHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is reported, and the other channel is delivered."""
    harness.recorder.expects_errors = True
    subscriber = harness.new_subscriber()
    subscriptions = [subscriber.subscription(channel) for channel in ("one", "two")]
    for subscription in subscriptions:
        harness.hub.add(subscription)
        subscription.go_live(None)
    with monkeypatch.context() as patch:
        patch.setattr(FanOut, "_visit", _fail_once(FanOut._visit))
        for channel in ("one", "two"):
            harness.publish_one(Publication(Raw(b"1")), channel=channel)
        harness.run_scheduled()
    assert [message["push"]["channel"] for message in subscriber.messages()] == ["two"]
    assert [event.where for event in harness.recorder.of(InternalError)] == ["fan-out"]


def _fail_once(visit: Callable[..., int]) -> Callable[..., int]:
    calls: list[object] = []

    def broken(self: FanOut, *arguments: object) -> int:
        calls.append(arguments)
        if len(calls) == 1:
            raise RuntimeError("a bug of a codec")
        return visit(self, *arguments)

    return broken


# --- direct sends


def test_single_pending_channel_is_sent_directly() -> None:
    """It is sent in the turn of the fan-out, without a turn of the flusher.

    A session with queued frames gets its frames in order.
    """
    harness = PlainHarness(direct=True)
    free, _ = harness.subscribe()
    waiting, _ = harness.subscribe()
    waiting.outbox.append(b"{}\n")
    harness.publish(1)
    harness.scheduled.pop()()  # the turn of the hub, before the turn of the flusher
    assert (free.data(), waiting.messages()) == ([1], [])
    harness.run_scheduled()
    assert (waiting.messages()[0], len(waiting.messages())) == ({}, 2)


@pytest.mark.parametrize(("channels", "subscriber_count"), [(2, 1), (1, DIRECT_SUBSCRIBERS_MAX + 1)])
def test_several_channels_and_large_channels_wait_for_the_flusher(channels: int, subscriber_count: int) -> None:
    """Several channels share one write per session, and a large channel is written in slices."""
    harness = PlainHarness(direct=True)
    subscribers = [
        harness.subscribe(channel=f"c{channel}")[0] for channel in range(channels) for _ in range(subscriber_count)
    ]
    for channel in range(channels):
        harness.publish(1, channel=f"c{channel}")
    harness.scheduled.pop()()
    assert all(not subscriber.transport.writes for subscriber in subscribers)
    harness.run_scheduled()
    assert all(subscriber.data() == [1] for subscriber in subscribers)


def test_error_in_a_walk_does_not_drop_earlier_deliveries() -> None:
    """The positions of the subscriptions before the error have advanced, so their frames must be written."""
    harness = PlainHarness(direct=True)
    harness.recorder.expects_errors = True
    first, _ = harness.subscribe(0)
    second, broken = harness.subscribe(0)
    broken.wire = None  # type: ignore[assignment]  # makes the delivery fail
    harness.publish(1)
    harness.run_scheduled()
    assert first.data() == [1]
    assert second.data() == []
    assert [type(event) for event in harness.recorder.events] == [InternalError]
