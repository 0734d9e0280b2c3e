"""The memory limit for all history of a node: which data is removed, and what clients see of it."""

from __future__ import annotations

import random

import msgspec
import pytest
from msgspec import Raw

from beaconfire.engines.memory.retained import cost_bytes
from beaconfire.engines.memory.streams import RETAINED_BYTES
from beaconfire.engines.port import PublishOptions
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo
from beaconfire.session.recovery import recover_stream

from .support import HISTORY, KEPT, World, now

ROOM_FOR_TEN = 12_000
"""Ten publications of a kilobyte in one channel, no eleventh."""


def kilobyte(number: int = 0) -> bytes:
    return b"%1000d" % number


def check_accounting(world: World) -> None:
    """The counters match the stored data, and every stream is in exactly one set of buckets."""
    streams = world.broker._streams
    table = streams._table
    bytes_there = sum(stream.position_bytes for stream in table.values())
    publications = skipped = 0
    for stream in table.values():
        if stream.bucket_second < 0:
            skipped += 1
            assert stream.retained is None
            assert stream.channel in world.broker._attached
        else:
            buckets = streams._publication_expiry if stream.retained is not None else streams._position_expiry
            assert stream in buckets._buckets[stream.bucket_second]
        assert stream.top - stream.oldest + 1 == len(stream.retained or ())
        if stream.retained is not None:
            kept = stream.retained.read_forward(-1.0, -1, 0, stream.top)
            assert [p.offset for p in kept] == list(range(stream.top - len(kept) + 1, stream.top + 1)), "no gap"
            bytes_there += RETAINED_BYTES + sum(map(cost_bytes, kept))
            publications += len(kept)
            assert kept, "an empty container wastes memory"
    assert len(streams._publication_expiry) + len(streams._position_expiry) + skipped == len(table)
    assert (streams.bytes, streams.publications) == (bytes_there, publications)


def test_the_oldest_publication_of_all_channels_is_removed_first() -> None:
    """Neither the publications of the channel that is published to, nor those that expire first."""
    world = World(history_bytes_max=15_500)
    brief = PublishOptions(history=msgspec.structs.replace(HISTORY, ttl_s=5.0))
    for number in range(4):
        world.publish("a", kilobyte(number))
    for number in range(4):
        world.publish("b", kilobyte(number), brief)
    assert world.times_full == 0
    for number in range(5):
        world.publish("c", kilobyte(number))
    assert (world.offsets("a"), world.offsets("b"), world.offsets("c")) == ([4], [1, 2, 3, 4], [1, 2, 3, 4, 5])
    assert world.times_full == 3
    check_accounting(world)


def test_a_busy_channel_loses_its_own_publications() -> None:
    """Offsets still rise by one, and the newest publications are kept. `history_size` alone would keep all of them."""
    world = World(history_bytes_max=ROOM_FOR_TEN)
    large = PublishOptions(history=msgspec.structs.replace(HISTORY, size=1_000_000))
    outcomes = [world.publish("a", kilobyte(number), large).position.offset for number in range(100)]
    assert outcomes == list(range(1, 101))
    kept = world.offsets("a")
    assert kept == list(range(101 - len(kept), 101))
    assert 7 <= len(kept) <= 10
    check_accounting(world)


def test_recovery_of_removed_publications_fails() -> None:
    """As after expiry, `recovered` is false. A client that missed only retained publications recovers all of them."""
    world = World(history_bytes_max=ROOM_FOR_TEN)
    epoch = world.publish("a", kilobyte()).position.epoch
    for number in range(30):
        world.publish("a", kilobyte(number))
    top = 31

    def recover(offset: int) -> tuple[bool, list[int]]:
        since = StreamPosition(offset, epoch)
        recovery = recover_stream(since, now(world.broker.history("a", HISTORY, -1, since)))
        return recovery.recovered, [publication.offset for publication in recovery.publications]

    first = world.offsets("a")[0]
    assert recover(top) == (True, [])
    assert recover(first - 1) == (True, list(range(first, top + 1)))
    assert recover(first - 2) == (False, [])
    for number in range(30):
        world.publish("b", kilobyte(number))
    assert world.offsets("a") == []
    assert recover(top - 1) == (False, [])


@pytest.mark.parametrize("reads", [True, False])
def test_positions_count_against_the_limit(reads: bool) -> None:
    """Clients that choose channel names, by reading or by publishing once, cannot fill the memory with positions."""
    world = World(history_bytes_max=100_000)
    for number in range(2000):
        if reads:
            now(world.broker.history(f"guess{number}", HISTORY, 0))
        else:
            world.publish(f"guess{number}", b"1")
        assert world.broker.statistics().bytes <= 100_000
    assert 50 < world.broker.statistics().streams < 300
    check_accounting(world)


def test_the_position_of_an_attached_channel_is_kept() -> None:
    """Otherwise its next publication would seem to belong to another stream. Positions of other channels are removed
    first.
    """
    world = World(history_bytes_max=20_000)
    epochs = {}
    for number in range(20):
        channel = f"room{number}"
        now(world.broker.attach([channel]))
        epochs[channel] = world.publish(channel, b"1").position.epoch
    for number in range(1000):
        now(world.broker.history(f"guess{number}", HISTORY, 0))
        world.publish("busy", kilobyte(number))
    for channel, epoch in epochs.items():
        assert world.publish(channel, b"2").position == (2, epoch)
    check_accounting(world)


def test_a_publication_larger_than_the_limit_is_announced_but_not_retained() -> None:
    """The publication has an offset."""
    world = World(history_bytes_max=ROOM_FOR_TEN)
    now(world.broker.attach(["a"]))
    world.publish("a", b"small")
    outcome = world.publish("a", b"x" * 20_000)
    assert outcome.position.offset == 2
    assert [len(data) for _, data in world.node.heard] == [5, 20_000]
    assert world.offsets("a") == []
    assert world.publish("a", b"small").position == (3, outcome.position.epoch)
    assert world.offsets("a") == [3]
    check_accounting(world)


def test_tags_and_info_count_against_the_limit() -> None:
    """The size of a publication includes tags and info as well as data."""
    world = World()

    def grow(**more: object) -> int:
        before = world.broker.statistics().bytes
        now(world.broker.publish("a", Raw(b"1"), KEPT, **more))  # type: ignore[arg-type]
        return world.broker.statistics().bytes - before

    grow()
    plain = grow()
    assert grow(info=ClientInfo("u" * 1000, "c", Raw(b"2" * 1000), Raw(b"3" * 1000))) > plain + 3000
    assert grow(tags={"k" * 1000: "v" * 1000}) > plain + 2000
    assert grow(tags={"k": "\N{FIRE}" * 1000}) > plain + 4000, "in memory, such a character takes four bytes"


def test_stale_entries_of_the_storage_order_are_removed() -> None:
    """Even if publications are removed by `history_size` or expiry and only publishing sweeps."""
    world = World()
    only_one = PublishOptions(history=msgspec.structs.replace(HISTORY, size=1))
    world.publish("long", b"1")
    for number in range(10_000):
        world.publish(f"short{number % 3}", b"2", only_one)
        assert len(world.broker._streams._storage_order) < 300
    world.clock.advance(1000.0)
    world.sweep_all()
    assert len(world.broker._streams._storage_order) == 0


@pytest.mark.parametrize("seed", range(20))
def test_accounting_is_right_for_any_sequence_of_operations(seed: int) -> None:
    """The limit holds after every step, and nothing is counted twice or forgotten."""
    rng = random.Random(seed)
    bytes_max = rng.choice((3_000, 20_000, 100_000))
    world = World(history_bytes_max=bytes_max)
    attached: dict[str, None] = {}
    for _ in range(1500):
        channel = f"c{rng.randrange(rng.choice((3, 60)))}"
        step = rng.random()
        options = msgspec.structs.replace(
            HISTORY, size=rng.choice((1, 5, 100)), ttl_s=rng.choice((2.0, 60.0)), meta_ttl_s=rng.choice((90.0, 600.0))
        )
        if step < 0.7:
            world.publish(channel, b"x" * rng.choice((1, 100, 2000)), PublishOptions(history=options))
        elif step < 0.8:
            now(world.broker.history(channel, options, 5))
        elif step < 0.85:
            now(world.broker.remove_history(channel))
        elif step < 0.9 and len(attached) < 3:
            now(world.broker.attach([channel]))
            attached[channel] = None
        elif step < 0.93 and attached:
            now(world.broker.detach([attached.popitem()[0]]))
        else:
            world.clock.advance(rng.choice((0.4, 3.0, 50.0, 400.0)))
            world.engine.sweep()
            continue
        check = world.broker.statistics().bytes
        assert check <= bytes_max + world.positions(*attached), "the channels that are listened to aside"
    check_accounting_after_sweep(world)
    world.clock.advance(10_000.0)
    for channel in attached:
        now(world.broker.detach([channel]))
    world.sweep_all()
    world.clock.advance(10_000.0)
    world.sweep_all()
    assert world.broker.statistics().bytes == world.broker.statistics().streams == 0
    assert len(world.broker._streams._storage_order) == 0


def check_accounting_after_sweep(world: World) -> None:
    """As `check_accounting`, after data that was replaced before its sweep has been swept."""
    world.sweep_all()
    check_accounting(world)


def test_the_cost_of_a_position_never_changes() -> None:
    """CPython stores a second form of a non-ASCII string when the string is first encoded. The counter must subtract
    exactly the bytes that it added, or clients that choose channel names could make the counter negative.
    """
    world = World()
    empty_bytes = world.broker.statistics().bytes
    channels = [msgspec.json.decode(f'"烽火{number}"') for number in range(100)]
    for channel in channels:
        world.publish(channel)
    msgspec.json.encode(channels)
    world.clock.advance(10_000)
    world.sweep_all()
    assert world.broker.statistics().bytes == empty_bytes
