"""Conflated subscriptions: how often they get an update, which one, and how many publications they leave out."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from beaconfire.delivery.item import WHOLE, Item
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.pushes import JoinPush, PublicationPush
from tests.unit.delivery.harness import START, ConflationHarness
from tests.unit.patching import apply


def test_first_update_is_sent_at_once_and_the_newest_after_the_interval() -> None:
    """Of ten updates within the interval, two are sent. The second one says that eight were left out."""
    harness = ConflationHarness()
    reader = harness.subscribe(2.0)
    harness.publish(*range(10))
    assert reader.offsets_and_left_out() == [(1, 0)]
    harness.advance_time(0.49)
    assert reader.offsets_and_left_out() == [(1, 0)]
    harness.advance_time(0.01)
    assert reader.offsets_and_left_out() == [(1, 0), (10, 8)]
    assert reader.publications()[-1]["data"] == 9
    assert harness.hub.statistics().conflated_total == 8
    assert harness.hub.statistics().delivered_total == 2


def test_updates_slower_than_the_rate_are_not_delayed() -> None:
    """If updates are slower than the rate, each one is sent at once, and none is left out."""
    harness = ConflationHarness()
    reader = harness.subscribe(2.0)
    for number in range(3):
        harness.publish(number)
        harness.advance_time(0.5)
    assert reader.offsets_and_left_out() == [(1, 0), (2, 0), (3, 0)]
    assert len(harness.timers) == 0


def test_newest_publication_of_a_batch_is_sent() -> None:
    """Each publication of one turn counts as an update."""
    harness = ConflationHarness()
    reader = harness.subscribe(1.0)
    for number in range(1, 4):
        harness.publish_one(Publication(Raw(b"1"), None, number), "e")
    harness.run_scheduled()
    assert reader.offsets_and_left_out() == [(3, 2)]


def test_without_a_rate_updates_are_left_out_only_while_the_connection_is_unwritable() -> None:
    """The newest publication is sent when the connection is writable again."""
    harness = ConflationHarness()
    reader = harness.subscribe(0)
    harness.publish(1, 2, 3)
    assert reader.offsets_and_left_out() == [(1, 0), (2, 0), (3, 0)]
    harness.block(reader)
    harness.publish(4, 5, 6)
    assert reader.subscriber.outbox.queued_bytes == 0
    harness.unblock(reader)
    harness.publish(7)
    assert reader.offsets_and_left_out() == [(1, 0), (2, 0), (3, 0), (6, 2), (7, 0)]


def test_with_a_rate_an_update_waits_for_the_interval_and_a_writable_connection() -> None:
    """Neither the end of the interval nor a writable connection is sufficient alone."""
    harness = ConflationHarness()
    reader = harness.subscribe(1.0)
    harness.publish(1)
    harness.block(reader)
    harness.publish(2, 3)
    harness.advance_time(1.0)
    harness.publish(4)
    assert reader.offsets_and_left_out() == [(1, 0)]
    harness.unblock(reader)
    assert reader.offsets_and_left_out() == [(1, 0), (4, 2)]
    harness.block(reader)
    harness.publish(5)
    harness.unblock(reader)
    assert reader.offsets_and_left_out() == [(1, 0), (4, 2)]
    harness.advance_time(1.0)
    assert reader.offsets_and_left_out() == [(1, 0), (4, 2), (5, 0)]


def test_subscriptions_without_conflation_get_every_publication() -> None:
    """They get each one at once."""
    harness = ConflationHarness()
    subscriber = harness.new_subscriber()
    other = subscriber.subscription("news")
    harness.hub.add(other)
    other.go_live(START)
    harness.subscribe(1.0)
    harness.publish(1, 2, 3)
    assert subscriber.data() == [1, 2, 3]


def test_subscriptions_with_equal_left_out_counts_share_a_frame() -> None:
    """The newest publication is packed once for them, and once more for a subscription that joined in between."""
    harness = ConflationHarness()
    readers = [harness.subscribe(1.0) for _ in range(5)]
    harness.publish(1, 2)
    late = harness.subscribe(1.0, top=StreamPosition(2, "e"))
    late.subscription.strategy.select([Publication(Raw(b"2"), offset=2)])  # sent in the subscribe reply
    harness.publish(3)
    packed = harness.wire.packed
    harness.advance_time(1.0)
    assert harness.wire.packed == packed + 2
    assert [reader.offsets_and_left_out() for reader in readers] == [[(1, 0), (3, 1)]] * 5
    assert late.offsets_and_left_out() == [(3, 0)]


def test_joins_and_leaves_are_not_conflated() -> None:
    """A join is sent at once, and does not replace a publication."""
    harness = ConflationHarness()
    reader = harness.subscribe(1.0)
    harness.publish(1, 2)
    harness.hub.announce(JoinPush("news", ClientInfo("ann", "c9")))
    harness.run_scheduled()
    assert [next(iter(message["push"].keys() - {"channel"})) for message in reader.subscriber.messages()] == [
        "pub",
        "join",
    ]
    harness.advance_time(1.0)
    assert reader.offsets_and_left_out() == [(1, 0), (2, 0)]


def test_filtered_publications_do_not_count_as_left_out() -> None:
    """Only a publication that passes the filter can be the newest."""
    harness = ConflationHarness()
    reader = harness.subscribe(1.0, filtered=True)
    harness.publish(1)
    harness.publish(2, 3, kind="unwanted")
    harness.publish(4)
    harness.publish(5, kind="unwanted")
    harness.publish(6)
    harness.publish(7, kind="unwanted")
    harness.advance_time(1.0)
    assert reader.offsets_and_left_out() == [(1, 0), (6, 1)]


def test_publications_that_exclude_the_client_do_not_count_as_left_out() -> None:
    """For example, a client does not want its own publication without echo."""
    harness = ConflationHarness()
    reader = harness.subscribe(1.0)
    harness.publish(1)
    harness.publish(2, exclude=("c1",))
    harness.publish(3)
    harness.advance_time(1.0)
    assert reader.offsets_and_left_out() == [(1, 0), (3, 0)]


def test_patches_start_from_the_last_publication_that_was_sent() -> None:
    """The next publication of the stream is sent as a patch.

    After a publication was left out, the next one is sent whole.
    """
    harness = ConflationHarness()
    reader = harness.subscribe(1.0, deltas=True)
    texts = [{"text": "the same for a long while, and then: " * 3, "number": number} for number in range(5)]
    harness.publish(texts[0])
    harness.advance_time(1.0)
    harness.publish(texts[1], texts[2], texts[3])
    harness.advance_time(1.0)
    harness.publish(texts[4])
    harness.advance_time(1.0)
    assert reader.offsets_and_left_out() == [(1, 0), (2, 0), (4, 1), (5, 0)]
    assert [pub.get("delta", False) for pub in reader.publications()] == [False, True, False, True]
    base, data = b"", []
    for pub in reader.publications():
        base = apply(base, pub["data"].encode()) if "delta" in pub else pub["data"].encode()
        data.append(json.loads(base))
    assert data == [texts[0], texts[1], texts[3], texts[4]]
    assert harness.hub.statistics().patches_total == 2


def test_position_is_that_of_the_last_publication_that_was_sent() -> None:
    """A client that recovers from its position gets the held publication.

    Publications without an offset do not move the position.
    """
    harness = ConflationHarness()
    reader = harness.subscribe(1.0)
    harness.publish(1)
    assert reader.subscription.position == (1, "e")
    harness.publish(2, in_stream=False)
    assert reader.subscription.position == (1, "e")
    harness.publish(3, 4)
    assert reader.subscription.position == (1, "e")
    assert reader.subscription.seen == 3
    harness.advance_time(1.0)
    assert reader.subscription.position == (3, "e")


def test_subscriptions_without_a_position_are_conflated() -> None:
    """Most conflated channels have no history."""
    harness = ConflationHarness()
    reader = harness.subscribe(1.0, top=None)
    harness.publish("a", "b", "c", in_stream=False)
    harness.advance_time(1.0)
    assert reader.offsets_and_left_out() == [(0, 0), (0, 1)]
    assert reader.subscription.position is None


def test_held_publication_keeps_a_bounded_number_of_frames() -> None:
    """A held publication with five hundred different left-out counts keeps at most sixteen frames, and every count is
    right."""
    harness = ConflationHarness()
    wire = harness.wire
    item = Item(PublicationPush("news", Publication(Raw(b'"' + b"x" * 1000 + b'"'), None, 9)), 9, 8, "e", (), 0)
    for left_out in range(500):
        for repeated in (left_out, 0 if left_out < 5 else left_out):
            single = item.single_frame(wire, repeated, WHOLE)
            assert json.loads(cast(bytes, single.frame))["push"]["pub"].get("conflated", 0) == repeated
    kept = sum(len(single_frame.frame) for single_frame in (item._singles or {}).values())
    assert kept < 20 * 1100, "at most twenty of five hundred frames"
    packed = wire.packed
    item.single_frame(wire, 499, WHOLE)
    assert wire.packed == packed, "the newest frame is shared"


def test_held_publication_that_cannot_be_encoded_is_reported_when_it_is_due() -> None:
    """The publisher is not involved any more at that time."""
    harness = ConflationHarness()
    reader = harness.subscribe(1.0)
    harness.publish(1)
    harness.publish_one(Publication(Raw(b"\xff"), None, 2), "e")
    harness.run_scheduled()
    assert reader.subscriber.undeliverable == 0
    harness.advance_time(1.0)
    assert reader.subscriber.undeliverable == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from(["wanted", "wanted", "unwanted"])),
        st.tuples(st.just("time"), st.sampled_from([0.05, 0.3, 1.1])),
        st.tuples(st.sampled_from(["block", "unblock", "turn"]), st.none()),
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=200)
@given(STEPS, st.sampled_from([0.0, 1.0, 4.0]), st.booleans(), st.booleans())
def test_latest_publication_is_always_sent_in_the_end(
    steps: list[tuple[str, Any]], max_rate: float, filtered: bool, deltas: bool
) -> None:
    """The sent publications and left-out counts add up to what was published, in order, and updates are never faster
    than the rate."""
    harness = ConflationHarness()
    reader = harness.subscribe(max_rate, filtered=filtered, deltas=deltas)
    wanted: list[int] = []
    count_before, times = 0, []
    for step, value in [*steps, ("unblock", None), ("time", 1.1), ("time", 1.1)]:
        if step == "publish":
            harness.offset += 1
            publication = Publication(Raw(b'"%d"' % harness.offset), None, harness.offset, {"kind": value})
            harness.publish_one(publication, "e", (), True)
            if value == "wanted" or not filtered:
                wanted.append(harness.offset)
        elif step == "time":
            harness.advance_time(value)
        elif step == "block":
            harness.block(reader)
        elif step == "unblock":
            harness.unblock(reader)
        else:
            harness.run_scheduled()
        fresh = len(reader.offsets_and_left_out()) - count_before
        count_before += fresh
        times += [harness.clock.now_s()] * fresh
    received = reader.offsets_and_left_out()
    count = 0
    for offset, left_out in received:
        count += left_out + 1
        assert offset == wanted[count - 1], "the left-out count is the number of publications in between"
    assert count == len(wanted)
    if max_rate:
        intervals = [later - earlier for earlier, later in pairwise(times)]
        assert all(interval >= 1 / max_rate - 1e-9 for interval in intervals)
