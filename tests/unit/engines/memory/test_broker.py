"""The memory broker: announcements, limits, and its guarantees beyond those of the port."""

from __future__ import annotations

import sys

import msgspec
import pytest
from msgspec import Raw

from beaconfire.engines.memory import MemoryBrokerStatistics
from beaconfire.engines.memory.streams import RETAINED_BYTES
from beaconfire.engines.port import MemberChange, PublishOptions
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo

from .support import HISTORY, KEPT, Node, World, now


def keyed(key: str) -> PublishOptions:
    return PublishOptions(history=HISTORY, idempotency_key=key)


def test_publishing_announces_before_it_returns() -> None:
    """Storing and announcing are one step without suspension. During the announcement, the publication is already in
    history.
    """
    world = World()
    found: list[list[int]] = []
    world.node.react = lambda channel, data: found.append(world.offsets(channel))
    now(world.broker.attach(["a"]))
    world.publish("a", b"1")
    world.publish("a", b"2")
    assert found == [[1], [1, 2]]


def test_an_inner_publish_is_announced_after_the_outer_one() -> None:
    """A publish from within an announcement is stored immediately and announced afterwards, in order and without
    recursion.
    """
    world = World()
    now(world.broker.attach(["a"]))
    now(world.broker.attach(["b"]))
    depths: list[int] = []

    def react(channel: str, data: bytes) -> None:
        depth, frame = 0, sys._getframe()
        while frame.f_back is not None:
            depth, frame = depth + 1, frame.f_back
        depths.append(depth)
        if channel == "a" and int(data) < 3000:
            assert world.publish("a", b"%d" % (int(data) + 1)).position.offset == int(data) + 1
            assert world.publish("b", data).position.offset == int(data)

    world.node.react = react
    world.publish("a", b"1")
    assert [int(data) for channel, data in world.node.heard if channel == "a"] == list(range(1, 3001))
    assert [int(data) for channel, data in world.node.heard if channel == "b"] == list(range(1, 3000))
    assert len(set(depths[1:])) == 1  # all that were queued
    assert max(depths) - depths[0] < 5


def test_a_join_is_announced_after_earlier_publications() -> None:
    """Also if the join is published from within an announcement."""
    world = World()
    now(world.broker.attach(["a"]))

    def react(channel: str, data: bytes) -> None:
        if data == b"1":
            world.publish("a", b"2")
            now(world.broker.announce("a", [MemberChange(True, ClientInfo("ann", "c1"))]))
            now(world.broker.announce("a", [MemberChange(False, ClientInfo("ann", "c1"))]))
            world.publish("a", b"3")

    world.node.react = react
    world.publish("a", b"1")
    assert [data for _, data in world.node.heard] == [b"1", b"2", b"join", b"leave", b"3"]


def test_detach_inside_an_announcement_drops_queued_announcements() -> None:
    """Queued announcements of the channel are not made any more. The publications stay in history."""
    world = World()
    now(world.broker.attach(["a"]))

    def react(channel: str, data: bytes) -> None:
        world.publish("a", b"2")
        now(world.broker.detach(["a"]))

    world.node.react = react
    world.publish("a", b"1")
    assert world.node.heard == [("a", b"1")]
    assert world.offsets("a") == [1, 2]


def test_an_exception_of_a_callback_does_not_stop_other_announcements() -> None:
    """A callback that raises breaks its contract. The publisher gets the exception, and queued announcements are still
    made.
    """
    world = World()
    now(world.broker.attach(["a"]))

    def react(channel: str, data: bytes) -> None:
        if data == b"1":
            world.publish("a", b"2")
            raise ValueError("bug")

    world.node.react = react
    with pytest.raises(ValueError, match="bug"):
        world.publish("a", b"1")
    assert [data for _, data in world.node.heard] == [b"1", b"2"]
    world.publish("a", b"3")
    assert [data for _, data in world.node.heard] == [b"1", b"2", b"3"]


def test_the_broker_serves_exactly_one_node() -> None:
    """`attach` fails before `start` and after `stop`, and a second `start` fails."""
    world = World()
    with pytest.raises(RuntimeError, match="already"):
        now(world.broker.start(Node()))
    now(world.broker.attach(["a"]))
    now(world.broker.stop())
    now(world.broker.stop())
    world.publish("a")
    assert world.node.heard == []
    with pytest.raises(RuntimeError, match="not started"):
        now(world.broker.attach(["a"]))


def test_stop_inside_an_announcement_ends_announcements() -> None:
    """Nothing is announced after `stop`. Streams are still there after the next `start`."""
    world = World()
    now(world.broker.attach(["a"]))

    def react(channel: str, data: bytes) -> None:
        world.publish("a", b"2")
        now(world.broker.stop())

    world.node.react = react
    world.publish("a", b"1")
    assert world.node.heard == [("a", b"1")]
    other = Node()
    now(world.broker.start(other))
    now(world.broker.attach(["a"]))
    world.publish("a", b"3")
    assert other.heard == [("a", b"3")]
    assert world.offsets("a") == [1, 2, 3]


def test_the_oldest_idempotency_key_is_evicted_at_the_limit() -> None:
    """The eviction is counted, and newer keys still work."""
    world = World(idempotency_keys_max=3)
    for key in ("k1", "k2", "k3", "k4"):
        world.publish("a", options=keyed(key))
    assert world.broker.statistics().idempotency_keys == 3
    assert world.broker.statistics().idempotency_keys_evicted_total == 1
    assert world.publish("a", options=keyed("k2")).suppressed == "idempotency"
    assert world.publish("a", options=keyed("k1")).suppressed == ""


def test_a_stored_payload_does_not_keep_its_frame() -> None:
    """A decoded payload is a view of its frame. History keeps only a copy of the payload."""

    class Frame(msgspec.Struct):
        data: Raw
        filler: str

    world = World()
    frame = msgspec.json.encode({"data": {"x": 1}, "filler": "x" * 100_000})
    references = sys.getrefcount(frame)
    payload = msgspec.json.decode(frame, type=Frame).data
    assert sys.getrefcount(frame) == references + 1
    now(world.broker.publish("a", payload, KEPT))
    del payload
    assert sys.getrefcount(frame) == references
    page = now(world.broker.history("a", HISTORY, -1))
    assert bytes(page.publications[0].data) == b'{"x":1}'


def test_the_broker_copies_tags() -> None:
    """Later changes of the caller's mapping do not change the publication."""
    world = World()
    tags = {"kind": "old"}
    now(world.broker.publish("a", Raw(b"1"), KEPT, tags=tags))
    tags["kind"] = "new"
    assert now(world.broker.history("a", HISTORY, -1)).publications[0].tags == {"kind": "old"}


def test_statistics_follow_the_stored_data() -> None:
    """Channels, streams, publications, bytes and keys are counted when they are added and removed."""
    world = World()
    now(world.broker.attach(["a"]))
    now(world.broker.attach(["b"]))
    now(world.broker.detach(["b"]))
    world.publish("a", b"12345", keyed("k"))
    world.publish("c", b"123")
    for _ in range(20):
        world.publish("d", b"1")
    now(world.broker.history("e", HISTORY, 0))
    assert world.broker.statistics() == MemoryBrokerStatistics(
        attached_channels=1,
        streams=4,
        publications=12,
        bytes=world.cost(5, 3, *[1] * 10) + world.positions("a", "c", "d", "e") + 3 * RETAINED_BYTES,
        idempotency_keys=1,
        idempotency_keys_evicted_total=0,
    )
    now(world.broker.remove_history("d"))
    statistics = world.broker.statistics()
    assert statistics.publications == 2
    assert statistics.bytes == world.cost(5, 3) + world.positions("a", "c", "d", "e") + 2 * RETAINED_BYTES


def test_a_page_in_the_middle_of_a_large_history() -> None:
    """The page is right in both directions."""
    world = World()
    options = PublishOptions(history=msgspec.structs.replace(HISTORY, size=5000))
    for _ in range(12_345):
        world.publish("a", options=options)
    page = now(world.broker.history("a", HISTORY, 3, StreamPosition(10_000, "")))
    assert [publication.offset for publication in page.publications] == [10_001, 10_002, 10_003]
    page = now(world.broker.history("a", HISTORY, 3, StreamPosition(10_000, ""), True))
    assert [publication.offset for publication in page.publications] == [9_999, 9_998, 9_997]
    assert world.offsets("a") == list(range(7_346, 12_346))


def test_a_forgotten_stream_leaves_nothing_behind() -> None:
    """Neither publications, nor the position, nor memory. The next use starts a new epoch."""
    world = World()
    before = world.broker.statistics()
    first = world.publish("a").position
    world.publish("a")
    now(world.broker.history("empty", HISTORY, 0))
    for channel in ("a", "empty", "unknown"):
        world.broker.forget(channel)
    assert world.broker.statistics() == before
    second = world.publish("a").position
    assert second.offset == 1
    assert second.epoch != first.epoch
    world.clock.advance(10_000)
    world.sweep_all()
    assert world.broker.statistics() == before
