"""Memory is given back: by sweeping, by publishing, without anybody reading, and never for long at a time."""

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
    idempotency_keys_forgotten_total=0,
)


def agendas(world: World) -> int:
    """How much is still noted for later, of which statistics do not tell."""
    streams = world.broker._streams
    return len(streams._expiring) + len(streams._forgettable) + len(world.presence._expiring)


def test_publications_go_before_the_position() -> None:
    """A sweep after `ttl_s` drops the publications, one after `meta_ttl_s` the stream, each at most a second late."""
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
    assert agendas(world) == 0


def test_publishing_alone_gives_memory_back() -> None:
    """Without a single sweep or read, garbage does not outrun publishers that go from channel to channel."""
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


def test_streams_that_were_only_read_go_too() -> None:
    """Asking for positions makes streams, and they leave nothing behind."""
    world = World()
    for number in range(1000):
        now(world.broker.history(f"channel-{number}", HISTORY, 0))
    assert world.broker.statistics().streams == 1000
    world.clock.advance(602.0)
    world.sweep_all()
    assert world.broker.statistics() == EMPTY
    assert agendas(world) == 0


def test_a_stream_that_was_empty_for_a_while_is_swept_again() -> None:
    """Publications that follow after all earlier ones were swept expire like those; an empty stream keeps no rows."""
    world = World()
    for round_number in range(1, 4):
        world.publish("a")
        assert world.broker.statistics().publications == 1
        world.clock.advance(62.0)
        world.sweep_all()
        assert world.broker.statistics().publications == 0
        assert world.broker._streams._table["a"].tail is None
        assert now(world.broker.history("a", HISTORY, -1)).position.offset == round_number


def test_publications_that_outlive_their_position_are_swept_once() -> None:
    """With `meta_ttl_s` below `ttl_s` the stream waits for its publications, and nothing is due until then."""
    world = World()
    world.publish("a", options=PublishOptions(history=msgspec.structs.replace(HISTORY, meta_ttl_s=10.0)))
    world.clock.advance(30.0)
    assert not world.engine.sweep()
    assert world.broker.statistics().streams == 1
    world.clock.advance(32.0)
    assert not world.engine.sweep()
    assert world.broker.statistics() == EMPTY


def test_a_stream_in_use_stays() -> None:
    """Sweeping does not touch a stream that is read from time to time, nor what is alive in it."""
    world = World()
    epoch = world.publish("a").position.epoch
    for _ in range(10):
        world.clock.advance(500.0)
        world.engine.sweep()
        assert now(world.broker.history("a", HISTORY, 0)).position == (1, epoch)
    assert agendas(world) == 1


def test_the_agendas_do_not_grow_with_use() -> None:
    """However often one channel is published to, read, emptied and refreshed, it is noted a few times at most."""
    world = World()
    ann = ClientInfo("ann", "c1")
    for _ in range(300):
        world.publish("a")
        now(world.broker.history("a", HISTORY, 0))
        now(world.presence.add("a", ann, 60.0))
        now(world.broker.remove_history("a"))
        world.clock.advance(7.0)
        world.engine.sweep()
    assert agendas(world) <= 3


def test_a_stream_forgotten_and_made_anew() -> None:
    """A stream that follows a forgotten one before any sweep is neither swept in its place nor counted twice."""
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
    assert agendas(world) == 0


def test_one_sweep_has_a_budget() -> None:
    """However much has expired, one sweep drops no more than its budget of each kind, and the next ones the rest."""
    world = World()
    long = PublishOptions(history=msgspec.structs.replace(HISTORY, size=3 * SWEEP_BUDGET))
    for _ in range(3 * SWEEP_BUDGET):
        world.publish("long", options=long)
    for number in range(3 * SWEEP_BUDGET):
        world.publish(f"channel-{number}")
        now(world.presence.add(f"channel-{number}", ClientInfo("ann", "c1"), 60.0))
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
    assert agendas(world) == 1  # "long" was read just now.


def test_a_key_used_again_does_not_hold_up_others() -> None:
    """A key that is remembered anew before its expired entry was swept takes its place at the end of the queue."""
    world = World()
    for key in ("k1", "k2", "k3"):
        world.publish("a", options=PublishOptions(idempotency_key=key))
    world.clock.advance(301.0)
    assert world.publish("a", options=PublishOptions(idempotency_key="k1")).suppressed == ""
    world.sweep_all()
    assert world.broker.statistics().idempotency_keys == 1
    assert world.broker.statistics().idempotency_keys_forgotten_total == 0
    assert world.publish("a", options=PublishOptions(idempotency_key="k1")).suppressed == "idempotency"


def test_presence_gives_memory_back() -> None:
    """Entries that expire are swept without anybody reading; refreshed ones stay; removed ones go at once."""
    world = World()
    for number in range(100):
        now(world.presence.add("a", ClientInfo("ann", f"c{number}"), 60.0))
        now(world.presence.add(f"channel-{number}", ClientInfo("bob", "c"), 60.0))
    world.clock.advance(40.0)
    now(world.presence.add("a", ClientInfo("ann", "c7"), 60.0))
    now(world.presence.remove("channel-3", "c"))
    assert world.presence.statistics() == MemoryPresenceStatistics(channels=100, entries=199)
    world.clock.advance(22.0)
    world.sweep_all()
    assert world.presence.statistics() == MemoryPresenceStatistics(channels=1, entries=1)
    assert list(now(world.presence.members("a"))) == ["c7"]
    world.clock.advance(42.0)
    world.sweep_all()
    assert world.presence.statistics() == MemoryPresenceStatistics(channels=0, entries=0)
    assert agendas(world) == 0


def test_presence_with_a_changing_time_to_live() -> None:
    """A shorter time to live gives memory back sooner, and what an entry replaced cannot take it away."""
    world = World()
    ann = ClientInfo("ann", "c1")
    now(world.presence.add("a", ann, 60.0))
    now(world.presence.add("a", ann, 10.0))
    now(world.presence.add("b", ann, 60.0))
    now(world.presence.add("b", ann, 10.0))
    now(world.presence.add("b", ann, 600.0))
    world.clock.advance(12.0)
    world.sweep_all()
    assert world.presence.statistics() == MemoryPresenceStatistics(channels=1, entries=1)
    world.clock.advance(100.0)
    world.sweep_all()
    assert list(now(world.presence.members("b"))) == ["c1"]
    world.clock.advance(500.0)
    world.sweep_all()
    assert world.presence.statistics() == MemoryPresenceStatistics(channels=0, entries=0)
    assert agendas(world) == 0


def test_adding_presence_alone_gives_memory_back() -> None:
    """Those who come sweep up after those who went."""
    world = World()
    for number in range(5000):
        now(world.presence.add(f"first-{number}", ClientInfo("ann", "c1"), 60.0))
    world.clock.advance(62.0)
    for number in range(5000):
        now(world.presence.add(f"second-{number}", ClientInfo("ann", "c1"), 60.0))
    assert world.presence.statistics() == MemoryPresenceStatistics(channels=5000, entries=5000)


def test_a_removed_client_is_not_remembered_until_its_time_to_live() -> None:
    """What a client said about itself goes with it, though its place in the agenda stays a while."""
    world = World()
    info = ClientInfo("ann", "c1")
    references = sys.getrefcount(info)
    now(world.presence.add("a", info, 60.0))
    now(world.presence.remove("a", "c1"))
    assert sys.getrefcount(info) == references


def visit(world: World, channels: int) -> None:
    """So many channels, each attached, published to, asked for its position, visited by a client, and left."""
    for number in range(channels):
        name = f"channel-{number}"
        now(world.broker.attach(name))
        now(world.presence.add(name, ClientInfo("ann", "c1"), 60.0))
        world.publish(name, b'{"x":1}', KEPT if number % 8 else PublishOptions(HISTORY, idempotency_key="k"))
        now(world.broker.history(name, HISTORY, 0))
        now(world.broker.detach(name))
        if number % 1000 == 0:
            world.node.heard.clear()
    world.node.heard.clear()


def test_channels_that_come_and_go_leave_no_memory_behind() -> None:
    """After 10,000 channels and their times to live every table is empty, and the memory of them is given back."""
    world = World(idempotency_keys_max=10**6)
    visit(world, 100)
    tracemalloc.start()
    try:
        visit(world, 10_000)
        used = tracemalloc.get_traced_memory()[0]
        world.clock.advance(1000.0)
        world.sweep_all()
        gc.collect()
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert world.broker.statistics() == EMPTY
    assert world.presence.statistics() == MemoryPresenceStatistics(channels=0, entries=0)
    assert agendas(world) == 0
    assert used > 5_000_000
    assert left < 100_000
