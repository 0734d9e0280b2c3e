"""Expired data is freed by sweeping and by publishing, without any reads, in short steps."""

from __future__ import annotations

import gc
import sys
import tracemalloc

import msgspec

from beaconfire.engines.memory import MemoryBrokerStatistics, MemoryPresenceStatistics
from beaconfire.engines.memory.broker import SWEEP_BUDGET
from beaconfire.engines.port import PublishOptions
from beaconfire.model.publication import ClientInfo

from .support import HISTORY, KEPT, World, now

EMPTY = MemoryBrokerStatistics(
    attached_channels=0,
    streams=0,
    publications=0,
    bytes=0,
    idempotency_keys=0,
    idempotency_keys_evicted_total=0,
)


def bucket_items(world: World) -> int:
    """How many items are in expiry buckets. Statistics do not show this."""
    streams = world.broker._streams
    return len(streams._publication_expiry) + len(streams._position_expiry) + len(world.presence._expiry)


def test_publications_expire_before_the_position() -> None:
    """A sweep after `ttl_s` removes the publications, and one after `meta_ttl_s` the stream. Each is at most a second
    late.
    """
    world = World()
    world.publish("a", b"123")
    world.clock.advance(59.0)
    world.engine.sweep()
    assert world.broker.statistics().publications == 1
    world.clock.advance(2.0)
    world.engine.sweep()
    assert world.broker.statistics().publications == 0
    assert world.broker.statistics().bytes == world.positions("a")
    world.clock.advance(538.0)
    world.engine.sweep()
    assert world.broker.statistics().streams == 1
    world.clock.advance(2.0)
    world.engine.sweep()
    assert world.broker.statistics() == EMPTY
    assert bucket_items(world) == 0


def test_publishing_alone_frees_memory() -> None:
    """Without sweeps and reads, expired data does not outgrow its removal when publishers change channels."""
    world = World(idempotency_keys_max=10**6)
    for number in range(5000):
        world.publish(f"first-{number}", options=PublishOptions(history=HISTORY, idempotency_key="k"))
    world.clock.advance(1000.0)
    for number in range(5000):
        world.publish(f"second-{number}", options=PublishOptions(history=HISTORY, idempotency_key="k"))
    statistics = world.broker.statistics()
    assert 5000 <= statistics.streams <= 5064
    assert 5000 <= statistics.publications <= 5064
    assert 5000 <= statistics.idempotency_keys <= 5064


def test_streams_that_were_only_read_expire() -> None:
    """Asking for a position creates a stream. The stream is removed completely."""
    world = World()
    for number in range(1000):
        now(world.broker.history(f"channel-{number}", HISTORY, 0))
    assert world.broker.statistics().streams == 1000
    world.clock.advance(602.0)
    world.sweep_all()
    assert world.broker.statistics() == EMPTY
    assert bucket_items(world) == 0


def test_a_stream_that_was_empty_expires_again() -> None:
    """Publications after a phase without publications expire as usual. An empty stream keeps no lists."""
    world = World()
    for round_number in range(1, 4):
        world.publish("a")
        assert world.broker.statistics().publications == 1
        world.clock.advance(62.0)
        world.sweep_all()
        assert world.broker.statistics().publications == 0
        assert world.broker._streams._table["a"].retained is None
        assert now(world.broker.history("a", HISTORY, -1)).position.offset == round_number


def test_a_stream_lives_as_long_as_its_publications() -> None:
    """If `meta_ttl_s` is below `ttl_s`, the stream waits for its publications, and no sweep finds work until then."""
    world = World()
    world.publish("a", options=PublishOptions(history=msgspec.structs.replace(HISTORY, meta_ttl_s=10.0)))
    world.clock.advance(30.0)
    assert not world.engine.sweep()
    assert world.broker.statistics().streams == 1
    world.clock.advance(32.0)
    assert not world.engine.sweep()
    assert world.broker.statistics() == EMPTY


def test_a_stream_in_use_does_not_expire() -> None:
    """Sweeping removes neither a stream that is read from time to time, nor publications that have not expired."""
    world = World()
    epoch = world.publish("a").position.epoch
    for _ in range(10):
        world.clock.advance(500.0)
        world.engine.sweep()
        assert now(world.broker.history("a", HISTORY, 0)).position == (1, epoch)
    assert bucket_items(world) == 1


def test_the_buckets_do_not_grow_with_use() -> None:
    """A channel that is published to, read, emptied and refreshed many times has only a few bucket entries."""
    world = World()
    ann = ClientInfo("ann", "c1")
    for _ in range(300):
        world.publish("a")
        now(world.broker.history("a", HISTORY, 0))
        now(world.presence.add("a", [ann], 60.0))
        now(world.broker.remove_history("a"))
        world.clock.advance(7.0)
        world.engine.sweep()
    assert bucket_items(world) <= 3


def test_a_stream_is_replaced_after_expiry() -> None:
    """A stream that replaces an expired one before any sweep is neither swept in its place nor counted twice."""
    world = World()
    first = world.publish("a").position
    world.clock.advance(700.0)
    second = now(world.broker.history("a", HISTORY, 0)).position
    assert second.epoch != first.epoch
    world.sweep_all()
    assert (world.broker.statistics().streams, world.broker.statistics().publications) == (1, 0)
    assert world.publish("a").position == (1, second.epoch)
    assert world.offsets("a") == [1]
    world.clock.advance(700.0)
    world.sweep_all()
    assert world.broker.statistics() == EMPTY
    assert bucket_items(world) == 0


def test_one_sweep_has_a_budget() -> None:
    """One sweep removes at most its budget of each kind. The next sweeps remove the rest."""
    world = World()
    long = PublishOptions(history=msgspec.structs.replace(HISTORY, size=3 * SWEEP_BUDGET))
    for _ in range(3 * SWEEP_BUDGET):
        world.publish("long", options=long)
    for number in range(3 * SWEEP_BUDGET):
        world.publish(f"channel-{number}")
        now(world.presence.add(f"channel-{number}", [ClientInfo("ann", "c1")], 60.0))
    world.clock.advance(1000.0)
    before, entries = world.broker.statistics(), world.presence.statistics().entries
    assert world.engine.sweep()
    after = world.broker.statistics()
    assert 0 < before.publications - after.publications <= SWEEP_BUDGET
    assert 0 < before.streams - after.streams <= SWEEP_BUDGET
    assert 0 < entries - world.presence.statistics().entries <= SWEEP_BUDGET
    assert world.offsets("long") == []
    assert world.sweep_all() < 10
    assert not world.engine.sweep()
    assert world.broker.statistics().publications == 0
    assert bucket_items(world) == 1  # "long" was read just now.


def test_a_key_used_again_after_expiry_moves_to_the_end() -> None:
    """A key that is stored again before its expired entry was swept does not block the expiry of other keys."""
    world = World()
    for key in ("k1", "k2", "k3"):
        world.publish("a", options=PublishOptions(idempotency_key=key))
    world.clock.advance(301.0)
    assert world.publish("a", options=PublishOptions(idempotency_key="k1")).suppressed == ""
    world.sweep_all()
    assert world.broker.statistics().idempotency_keys == 1
    assert world.broker.statistics().idempotency_keys_evicted_total == 0
    assert world.publish("a", options=PublishOptions(idempotency_key="k1")).suppressed == "idempotency"


def test_presence_frees_memory() -> None:
    """Expired entries are swept without reads. Refreshed entries stay, and removed entries are freed immediately."""
    world = World()
    for number in range(100):
        now(world.presence.add("a", [ClientInfo("ann", f"c{number}")], 60.0))
        now(world.presence.add(f"channel-{number}", [ClientInfo("bob", "c")], 60.0))
    world.clock.advance(40.0)
    now(world.presence.add("a", [ClientInfo("ann", "c7")], 60.0))
    now(world.presence.remove("channel-3", ["c"]))
    assert world.presence.statistics() == MemoryPresenceStatistics(channels=100, entries=199)
    world.clock.advance(22.0)
    world.sweep_all()
    assert world.presence.statistics() == MemoryPresenceStatistics(channels=1, entries=1)
    assert list(now(world.presence.members("a"))) == ["c7"]
    world.clock.advance(42.0)
    world.sweep_all()
    assert world.presence.statistics() == MemoryPresenceStatistics(channels=0, entries=0)
    assert bucket_items(world) == 0


def test_presence_with_a_changing_time_to_live() -> None:
    """A shorter time to live frees the memory earlier. The replaced entry does not remove the new one."""
    world = World()
    ann = ClientInfo("ann", "c1")
    now(world.presence.add("a", [ann], 60.0))
    now(world.presence.add("a", [ann], 10.0))
    now(world.presence.add("b", [ann], 60.0))
    now(world.presence.add("b", [ann], 10.0))
    now(world.presence.add("b", [ann], 600.0))
    world.clock.advance(12.0)
    world.sweep_all()
    assert world.presence.statistics() == MemoryPresenceStatistics(channels=1, entries=1)
    world.clock.advance(100.0)
    world.sweep_all()
    assert list(now(world.presence.members("b"))) == ["c1"]
    world.clock.advance(500.0)
    world.sweep_all()
    assert world.presence.statistics() == MemoryPresenceStatistics(channels=0, entries=0)
    assert bucket_items(world) == 0


def test_adding_presence_alone_frees_memory() -> None:
    """Each `add` also removes expired entries."""
    world = World()
    for number in range(5000):
        now(world.presence.add(f"first-{number}", [ClientInfo("ann", "c1")], 60.0))
    world.clock.advance(62.0)
    for number in range(5000):
        now(world.presence.add(f"second-{number}", [ClientInfo("ann", "c1")], 60.0))
    assert world.presence.statistics() == MemoryPresenceStatistics(channels=5000, entries=5000)


def test_the_info_of_a_removed_client_is_freed_immediately() -> None:
    """Even though its bucket keeps the entry until it is due."""
    world = World()
    info = ClientInfo("ann", "c1")
    references = sys.getrefcount(info)
    now(world.presence.add("a", [info], 60.0))
    now(world.presence.remove("a", ["c1"]))
    assert sys.getrefcount(info) == references


def use_channels(world: World, channels: int) -> None:
    """Uses so many channels: attaches, publishes, reads the position, adds a client to presence, and detaches."""
    for number in range(channels):
        name = f"channel-{number}"
        now(world.broker.attach([name]))
        now(world.presence.add(name, [ClientInfo("ann", "c1")], 60.0))
        world.publish(name, b'{"x":1}', KEPT if number % 8 else PublishOptions(HISTORY, idempotency_key="k"))
        now(world.broker.history(name, HISTORY, 0))
        now(world.broker.detach([name]))
        if number % 1000 == 0:
            world.node.heard.clear()
    world.node.heard.clear()


def test_short_lived_channels_leave_no_memory_behind() -> None:
    """After 10,000 channels and their times to live every table is empty, and its memory is freed."""
    world = World(idempotency_keys_max=10**6)
    use_channels(world, 100)
    tracemalloc.start()
    try:
        use_channels(world, 10_000)
        used = tracemalloc.get_traced_memory()[0]
        world.clock.advance(1000.0)
        world.sweep_all()
        gc.collect()
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert world.broker.statistics() == EMPTY
    assert world.presence.statistics() == MemoryPresenceStatistics(channels=0, entries=0)
    assert bucket_items(world) == 0
    assert used > 5_000_000
    assert left < 100_000
