"""What is used, what expires, and what a memory limit drops, in both engines."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from beaconfire.base.clock import ManualClock
from beaconfire.engines.transfer import StreamImage
from tests.unit.engines.mirror.harness import CLOCK, HISTORY, memory, migration, sqlite


def test_a_position_that_a_read_has_made_is_mirrored(path: str) -> None:
    """A subscriber may hold the position of a channel without publications."""

    async def run() -> None:
        async with migration(memory(), sqlite(path)) as m:
            await m.follow()
            page = await m.read("a")
            positions = await m.broker.positions({"b": m.history})
            await m.follow()
            images = {image.channel: image for image in await m.new.export({"a": 0, "b": 0}, CLOCK.unix_s())}
            assert images["a"].position == page.position
            assert images["b"].position == positions["b"]

    asyncio.run(run())


def test_a_position_that_is_used_lives_on_in_the_new_engine(path: str) -> None:
    """Reads and comparisons of positions prolong it in the old engine. They are mirrored, but not each of them."""

    async def run() -> None:
        clock = ManualClock()
        async with migration(memory(clock), sqlite(path, clock), clock) as m:
            await m.publish("a")
            await m.follow()
            loads = 0
            load = m.replicator._new.load

            async def count(images: Sequence[StreamImage]) -> Sequence[str]:
                nonlocal loads
                loads += 1
                return await load(images)

            m.replicator._new.load = count  # type: ignore[method-assign]
            for _ in range(150):
                clock.advance(HISTORY.meta_ttl_s / 100)
                assert await m.broker.positions({"a": m.history})
                await m.follow()
            assert 20 <= loads <= 40
            clock.advance(0.9 * HISTORY.meta_ttl_s)
            assert len(await m.new.export({"a": 0}, clock.unix_s())) == 1
            assert await m.verify() == []

    asyncio.run(run())


def test_a_page_of_the_new_engine_prolongs_the_position_in_the_old_one(path: str) -> None:
    """Otherwise the position would expire there, although a client uses it."""

    async def run() -> None:
        clock = ManualClock()
        async with migration(memory(clock), sqlite(path, clock), clock) as m:
            m.broker.read_percent = 100.0
            position = await m.publish("a")
            for _ in range(5):
                await m.follow()
                clock.advance(0.5 * HISTORY.meta_ttl_s)
                assert (await m.read("a")).position == position

    asyncio.run(run())


def test_an_expired_channel_is_removed_from_the_new_engine(path: str) -> None:
    """Nothing is kept of it, also not in the memory of the mirror, and it is no difference."""

    async def run() -> None:
        clock = ManualClock()
        async with migration(memory(clock), sqlite(path, clock), clock) as m:
            await m.publish("a")
            await m.publish("b", idempotency_key="k")
            await m.follow()
            clock.advance(2 * HISTORY.meta_ttl_s)
            for _ in range(2):
                m.mirror.sweep()
            await m.follow()
            assert m.replicator._loaded == {}
            assert await m.new.count() == 0
            assert await m.verify() == []

    asyncio.run(run())


def test_what_the_memory_limit_drops_is_no_difference(path: str) -> None:
    """The old engine decides. The new engine drops the same, at the latest at a verification."""

    async def run() -> None:
        async with migration(memory(history_bytes_max=60_000), sqlite(path)) as m:
            for number in range(60):
                for _ in range(3):
                    await m.publish(f"channel-{number}", b"x" * 1000)
                await m.follow()
            assert await m.old.count() < 60
            assert await m.verify() == []
            await m.follow()
            assert await m.new.count() == await m.old.count()
            assert await m.verify() == []

    asyncio.run(run())
