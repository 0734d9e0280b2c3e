"""Streams of another engine in the file, until the original is not used any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.engines.memory import memory_engine, random_epoch
from beaconfire.engines.port import HistoryOptions, PublishOptions
from beaconfire.engines.sqlite import SqliteEngine, sqlite_engine
from beaconfire.engines.transfer import StreamImage
from beaconfire.model.events import NoEvents
from beaconfire.model.position import StreamPosition
from tests.conformance.engines.harness import Node

HISTORY = HistoryOptions(size=100, ttl_s=60.0, meta_ttl_s=600.0, durability="disk")
CLOCK = ManualClock()


async def image_of(channel: str, publications: int) -> StreamImage:
    """The image of a stream with this many publications."""
    old = memory_engine(CLOCK, new_epoch=lambda: "OLD")
    options = PublishOptions(history=HistoryOptions(size=100, ttl_s=60.0, meta_ttl_s=600.0))
    for number in range(publications):
        await old.broker.publish(channel, Raw(b"%d" % number), options)
    [image] = await old.transfer().export({channel: 0}, CLOCK.unix_s())
    return image


def run_on(path: Path, scenario: Callable[[SqliteEngine], Awaitable[None]]) -> None:
    """Runs the scenario with an engine on the file, which is closed afterwards."""

    async def play() -> None:
        live = memory_engine(CLOCK)
        engine = sqlite_engine(str(path), live, live.broker, CLOCK, random_epoch, NoEvents())
        await engine.broker.start(Node())
        try:
            await scenario(engine)
        finally:
            await engine.broker.stop()

    asyncio.run(play())


async def load(engine: SqliteEngine) -> None:
    await engine.transfer().load([await image_of("a", 3)])


async def use(engine: SqliteEngine) -> StreamPosition:
    page = await engine.broker.history("a", HISTORY, -1, StreamPosition(2, "OLD"))
    assert page.continues
    assert [each.offset for each in page.publications] == [3]
    return page.position


def test_a_stream_that_is_not_settled_gets_a_new_epoch_when_it_is_used(path: Path) -> None:
    """The original may have gone on, so the same epoch would hide lost publications. Positions up to the copy still
    continue; the same holds after a restart."""
    run_on(path, load)

    async def scenario(engine: SqliteEngine) -> None:
        position = await use(engine)
        assert (position.offset, position.epoch != "OLD") == (3, True)
        ahead = await engine.broker.history("a", HISTORY, -1, StreamPosition(4, "OLD"))
        assert not ahead.continues

    run_on(path, scenario)


def test_a_settled_stream_keeps_its_epoch(path: Path) -> None:
    """Also after a restart."""

    async def move(engine: SqliteEngine) -> None:
        await load(engine)
        await engine.transfer().settle()
        assert await use(engine) == StreamPosition(3, "OLD")

    async def scenario(engine: SqliteEngine) -> None:
        assert await use(engine) == StreamPosition(3, "OLD")

    run_on(path, move)
    run_on(path, scenario)


def test_a_stream_that_follows_its_original_keeps_its_epoch(path: Path) -> None:
    """While this process writes each change of the original as well. After its end the original may go on alone."""

    async def follow(engine: SqliteEngine) -> None:
        await load(engine)
        await engine.transfer().follow()
        assert await use(engine) == StreamPosition(3, "OLD")

    async def scenario(engine: SqliteEngine) -> None:
        assert (await use(engine)).epoch != "OLD"

    run_on(path, follow)
    run_on(path, scenario)


def test_a_copied_stream_is_compared_as_it_was_loaded(path: Path) -> None:
    """Exporting a stream that is not settled does not change its epoch, so a copy can be resumed after a restart."""
    run_on(path, load)

    async def scenario(engine: SqliteEngine) -> None:
        [image] = await engine.transfer().export({"a": 0}, CLOCK.unix_s())
        assert image.position == StreamPosition(3, "OLD")

    run_on(path, scenario)


def test_earlier_epochs_of_a_copy_move(path: Path) -> None:
    """A stream of the file that has forked is still continued by the memory engine, from positions of both epochs."""
    run_on(path, load)

    async def scenario(engine: SqliteEngine) -> None:
        await use(engine)
        [image] = await engine.transfer().export({"a": 0}, CLOCK.unix_s())
        memory = memory_engine(CLOCK)
        await memory.transfer().load([image])
        for since, continues in ((2, True), (3, True), (4, False)):
            page = await memory.broker.history("a", HISTORY, -1, StreamPosition(since, "OLD"))
            assert page.continues is continues
            assert page.position == image.position

    run_on(path, scenario)


def test_an_adopted_stream_gets_a_new_epoch_before_it_is_exported(path: Path) -> None:
    """Its original is lost, and may have gone on. Positions up to the last one that was loaded continue. A stream that
    was settled, or was made here, keeps its epoch."""

    async def scenario(engine: SqliteEngine) -> None:
        transfer = engine.transfer()
        await transfer.load([await image_of("settled", 1)])
        await transfer.settle()
        await load(engine)
        await transfer.adopt()
        images = {image.channel: image for image in await transfer.export({"a": 0, "settled": 0}, CLOCK.unix_s())}
        assert images["settled"].position == StreamPosition(1, "OLD")
        assert images["a"].position.epoch != "OLD"
        assert list(images["a"].ancestors) == [("OLD", 3)]
        assert (await use(engine)) == images["a"].position

    run_on(path, scenario)


def test_a_second_stop_waits_for_the_end_of_the_thread(path: Path) -> None:
    """Also if the first one was cancelled. So another engine can use the file afterwards."""

    async def play() -> None:
        live = memory_engine(CLOCK)
        engine = sqlite_engine(str(path), live, live.broker, CLOCK, random_epoch, NoEvents())
        await engine.broker.start(Node())
        stopping = asyncio.ensure_future(engine.broker.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.wait([stopping])
        await engine.broker.stop()
        other = sqlite_engine(str(path), live, live.broker, CLOCK, random_epoch, NoEvents())
        await other.broker.start(Node())
        await other.broker.stop()

    asyncio.run(play())
