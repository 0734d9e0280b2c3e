"""The engine with its thread: start, stop, routing between file and memory, and callers that do not wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec import Raw
from msgspec.structs import replace

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import NOT_AVAILABLE, CommandError, EngineUnavailable, StorageFull, StorageUnusable
from beaconfire.base.tasks import run_in_one_step
from beaconfire.base.timers import Timers
from beaconfire.engines.guard import guard_engine
from beaconfire.engines.memory import memory_engine, random_epoch
from beaconfire.engines.port import HistoryOptions, PublishOptions
from beaconfire.engines.sqlite import SqliteEngine, sqlite_engine, thread
from beaconfire.engines.sqlite.broker import POSITIONS_PER_OPERATION
from beaconfire.engines.sqlite.operations import Ping
from beaconfire.engines.sqlite.store import Store
from beaconfire.model.events import StorageOpened
from tests.conformance.engines.harness import Node
from tests.fakes.events import EventRecorder
from tests.unit.engines.sqlite.support import HISTORY, KEPT

LIVE = HistoryOptions(size=100, ttl_s=60.0)


class World:
    """An engine on a file, and its node."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock()
        self.events = EventRecorder()
        self.node = Node()
        live = memory_engine(self.clock)
        self.engine: SqliteEngine = sqlite_engine(str(path), live, live.broker, self.clock, random_epoch, self.events)
        self.broker = self.engine.broker

    async def publish(self, channel: str = "a", options: PublishOptions = KEPT) -> int:
        return (await self.broker.publish(channel, Raw(b"1"), options)).position.offset


def play(path: Path, scenario: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World(path)
        await world.broker.start(world.node)
        try:
            async with asyncio.timeout(30):
                await scenario(world)
        finally:
            await world.broker.stop()

    asyncio.run(main())


def test_the_engine_can_be_started_again(path: Path) -> None:
    """With all streams. Stopping twice does no harm, and nothing runs afterwards."""

    async def scenario(world: World) -> None:
        assert await world.publish() == 1
        await world.broker.stop()
        await world.broker.stop()
        with pytest.raises(EngineUnavailable, match="not started"):
            await world.publish()
        await world.broker.start(world.node)
        assert await world.publish() == 2
        assert [type(event) for event in world.events.events] == [StorageOpened, StorageOpened]

    play(path, scenario)


def test_a_file_that_cannot_be_opened_fails_the_start(path: Path) -> None:
    """Then the engine can be started when the reason is gone."""

    path.mkdir()

    async def main() -> None:
        world = World(path)
        with pytest.raises(StorageUnusable):
            await world.broker.start(world.node)
        await asyncio.to_thread(path.rmdir)
        await world.broker.start(world.node)
        assert await world.publish() == 1
        await world.broker.stop()

    asyncio.run(main())


def test_durability_decides_where_a_stream_is(path: Path) -> None:
    """In the file or in memory, for every call. The receipt names the durability."""

    async def scenario(world: World) -> None:
        outcome = await world.broker.publish("disk", Raw(b"1"), KEPT)
        assert outcome.durability == "disk"
        outcome = await world.broker.publish("live", Raw(b"1"), PublishOptions(history=LIVE))
        assert outcome.durability == "memory"
        positions = await world.broker.positions({"disk": HISTORY, "live": LIVE})
        assert {channel: position.offset for channel, position in positions.items()} == {"disk": 1, "live": 1}
        assert len((await world.broker.history("live", LIVE, -1)).publications) == 1
        assert world.engine.statistics().history_publications == 1
        for channel, options in (("disk", HISTORY), ("live", LIVE)):
            await world.broker.remove_history(channel)
            assert not (await world.broker.history(channel, options, -1)).publications

    play(path, scenario)
    world = World(path)

    async def other(world: World) -> None:
        assert (await world.broker.history("disk", HISTORY, 0)).position.offset == 1
        assert (await world.broker.history("live", LIVE, 0)).position.offset == 0

    play(path, other)
    assert world.engine.durabilities == ("memory", "disk")


def test_streams_in_memory_are_immediate(path: Path) -> None:
    """Their publishes and reads run in one step, also behind the guard, whose deadlines need a task."""

    async def scenario(world: World) -> None:
        guarded = guard_engine(world.engine, 3.0, Timers(world.clock), world.events)
        assert (guarded.immediate, guarded.keeps_order, guarded.durabilities) == (("memory",), True, ("memory", "disk"))
        for options in (PublishOptions(history=LIVE), PublishOptions()):
            run_in_one_step(guarded.broker.publish("a", Raw(b"1"), options))
        assert run_in_one_step(guarded.broker.history("a", LIVE, 0)).position.offset == 1
        for call in (guarded.broker.publish("a", Raw(b"1"), KEPT), guarded.broker.history("a", HISTORY, 0)):
            await call

    play(path, scenario)


def test_publishes_keep_their_order(path: Path) -> None:
    """Those that overlap take effect in the order in which they were started, and share commits."""

    async def scenario(world: World) -> None:
        assert await asyncio.gather(*(world.publish() for _ in range(300))) == list(range(1, 301))

    play(path, scenario)


def test_replicas_are_refused(path: Path) -> None:
    """By every call that names a durability."""

    async def scenario(world: World) -> None:
        replicated = replace(HISTORY, durability="replicated")
        for call in (
            world.broker.publish("a", Raw(b"1"), PublishOptions(history=replicated)),
            world.broker.history("a", replicated, 0),
            world.broker.positions({"a": replicated}),
        ):
            with pytest.raises(CommandError) as refused:
                await call
            assert refused.value.code is NOT_AVAILABLE

    play(path, scenario)


def test_many_positions_are_read_in_parts(path: Path) -> None:
    """So that publications do not wait for many channels."""

    async def scenario(world: World) -> None:
        channels = [f"c{number}" for number in range(2 * POSITIONS_PER_OPERATION + 1)]
        positions = await world.broker.positions(dict.fromkeys(channels, HISTORY))
        assert list(positions) == channels

    play(path, scenario)


def test_a_publish_whose_caller_has_left_is_announced_or_not_made(path: Path) -> None:
    """A caller that leaves before the batch starts: nothing happens. During the batch: the publication is announced."""

    async def scenario(world: World) -> None:
        await world.broker.attach(["a"])
        gate, entered = threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        store = world.engine.thread._writer._store
        assert store is not None
        publish = store.publish

        def held(*arguments: object) -> object:
            loop.call_soon_threadsafe(entered.set)
            gate.wait(10)
            return publish(*arguments)  # type: ignore[arg-type]

        store.publish = held  # type: ignore[method-assign, assignment]
        first = asyncio.ensure_future(world.publish())
        await entered.wait()
        second = asyncio.ensure_future(world.publish())
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        await asyncio.wait([first, second])
        gate.set()
        await world.broker.ping()
        assert world.node.offsets("a") == [1]
        assert (await world.broker.history("a", HISTORY, 0)).position.offset == 1

    play(path, scenario)


def test_waiting_operations_are_limited(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit they are refused, and not queued without end."""

    async def scenario(world: World) -> None:
        monkeypatch.setattr(thread, "WAITING_MAX", 0)
        with pytest.raises(EngineUnavailable, match="wait for the disk"):
            await world.publish()
        monkeypatch.setattr(thread, "WAITING_MAX", 10)
        assert await world.publish() == 1
        assert world.events.limits() == ["storage_waiting_max"]

    play(path, scenario)


def test_a_full_disk_refuses_before_the_queue(path: Path) -> None:
    """Publications get the error at once. What does not need room goes on."""

    async def scenario(world: World) -> None:
        await world.publish()
        world.engine.thread._writer.refusal = lambda: StorageFull("full")
        with pytest.raises(StorageFull):
            await world.publish()
        await world.broker.ping()
        assert world.engine.state().up

    play(path, scenario)


def test_batches_are_limited_by_count_and_by_bytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order stays the same."""
    commits: list[int] = []
    commit = Store.commit

    def count(self: Store) -> None:
        commits.append(1)
        commit(self)

    async def scenario(world: World) -> None:
        await world.broker.attach(["a"])
        for limit, value in (("BATCH_MAX", 2), ("BATCH_BYTES_MAX", 1)):
            monkeypatch.setattr(thread, limit, value)
            outcomes = await asyncio.gather(*(world.publish() for _ in range(7)))
            assert outcomes == sorted(outcomes)
        assert world.node.offsets("a") == list(range(1, 15))
        assert len(commits) >= 4 + 7

    monkeypatch.setattr(Store, "commit", count)
    play(path, scenario)


def test_what_was_submitted_before_the_stop_is_stored(path: Path) -> None:
    """In the order of submission."""

    async def scenario(world: World) -> None:
        waiting = [asyncio.ensure_future(world.publish()) for _ in range(1000)]
        await asyncio.sleep(0)
        await world.broker.stop()
        assert [await each for each in waiting] == list(range(1, 1001))

    play(path, scenario)


def test_a_closed_event_loop_ends_the_thread(path: Path) -> None:
    """A host that does not stop the engine: the thread closes the file."""

    async def main() -> World:
        world = World(path)
        await world.broker.start(world.node)
        return world

    world = asyncio.run(main())
    running = world.engine.thread._thread
    assert running is not None
    loop = asyncio.new_event_loop()
    world.engine.thread.submit(Ping(loop.create_future()))
    running.join(10)
    assert not running.is_alive()
    loop.close()
    play(path, lambda world: world.broker.ping())
