"""A migration while publications go on: memory to SQLite and back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence

import pytest
from msgspec import Raw
from msgspec.structs import replace

from beaconfire.engines.transfer import StreamImage
from beaconfire.model.position import StreamPosition
from tests.unit.engines.mirror.harness import CHANNELS, Migration, memory, migration, sqlite


async def publish_at_random(m: Migration, channels: int, count: int, producer: str, start: Mapping[str, int]) -> None:
    """A publisher that uses everything that moves: keys, versions, numbers, removals."""
    rng, numbers = random.Random(producer), dict(start)
    for _ in range(count):
        channel = f"channel-{rng.randrange(channels)}"
        match rng.randrange(6):
            case 0:
                await m.publish(channel, idempotency_key=f"k{rng.randrange(3)}")
            case 1:
                await m.publish(channel, version=rng.randrange(100))
            case 2:
                numbers[channel] = numbers.get(channel, 0) + 1
                await m.publish(channel, producer=producer, seq=numbers[channel])
            case 3 if rng.random() < 0.1:
                await m.broker.remove_history(channel)
            case _:
                await m.publish(channel, rng.randbytes(rng.randrange(200)))
        await asyncio.sleep(0)


@pytest.mark.timeout(3000)
def test_a_migration_there_and_back_under_load_has_no_difference(path: str) -> None:
    """Memory to SQLite, from there to a memory engine, and a memory engine that starts with the file, while four
    publishers go on. Positions of the beginning still continue at the end."""

    async def run() -> None:
        first = memory()
        async with migration(first, sqlite(path)) as m:
            positions = {}
            for number in range(CHANNELS):
                channel = f"channel-{number}"
                positions[channel] = await m.publish(channel, b'{"n":%d}' % number)
            await load_and_verify(m, "there")
            m.broker.read_percent = 100.0
            before = {channel: (await m.read(channel)) for channel in positions}
        async with migration(sqlite(path), memory()) as m:
            for channel, page in before.items():
                assert await m.read(channel) == page
                assert page.position.epoch == positions[channel].epoch
            await load_and_verify(m, "back")
            before = {channel: (await m.read(channel)) for channel in positions}
        async with migration(memory(), sqlite(path)) as m:
            for channel, page in before.items():
                assert await m.read(channel) == page
                assert page.position.epoch == positions[channel].epoch
            await load_and_verify(m, "there again")

    async def load_and_verify(m: Migration, name: str) -> None:
        publishers = [
            asyncio.create_task(publish_at_random(m, CHANNELS, max(500, CHANNELS // 10), f"{name}-{n}", {}))
            for n in range(4)
        ]
        assert await m.verify() == []
        m.broker.read_percent = 50.0
        await asyncio.gather(*publishers)
        await m.follow()
        assert await m.verify() == []

    asyncio.run(run())


def test_reads_of_the_percentage_come_from_the_new_engine(path: str) -> None:
    """A planted payload in the new engine shows where a page comes from. Stepping back takes effect at once."""

    async def run() -> None:
        async with migration(memory(), sqlite(path)) as m:
            for number in range(100):
                await m.publish(f"channel-{number}", b"old")
            await m.follow()
            for number in range(100):
                image = await m.image(f"channel-{number}")
                await m.new.load([replace(image, publications=[replace(image.publications[0], data=Raw(b"new"))])])

            async def from_new() -> set[int]:
                pages = [await m.read(f"channel-{number}") for number in range(100)]
                return {n for n, page in enumerate(pages) if bytes(page.publications[0].data) == b"new"}

            assert await from_new() == set()
            m.broker.read_percent = 30.0
            some = await from_new()
            assert 10 < len(some) < 50
            m.broker.read_percent = 60.0
            more = await from_new()
            assert some < more
            m.broker.read_percent = 100.0
            assert len(await from_new()) == 100
            m.broker.read_percent = 0.0
            assert await from_new() == set()

    asyncio.run(run())


def test_a_reader_finds_what_was_just_published(path: str) -> None:
    """Also while the new engine does not have the publication yet, and while every read should go there."""

    async def run() -> None:
        async with migration(memory(), sqlite(path)) as m:
            m.broker.read_percent = 100.0
            for number in range(200):
                position = await m.publish("a", b"%d" % number)
                page = await m.read("a")
                assert page.position == position
                assert page.publications[-1].offset == position.offset
                for _ in range(number % 3):
                    await asyncio.sleep(0)

    asyncio.run(run())


def test_a_channel_that_is_being_loaded_is_read_from_the_old_engine(path: str) -> None:
    """Otherwise a reader that has seen the announcement would not find the publication."""

    async def run() -> None:
        async with migration(memory(), sqlite(path)) as m:
            m.broker.read_percent = 100.0
            await m.publish("a", b"1")
            await m.follow()
            transfer, held = m.mirror.replicator._new, asyncio.Event()
            load, is_loading = transfer.load, asyncio.Event()

            async def hold(images: Sequence[StreamImage]) -> Sequence[str]:
                is_loading.set()
                await held.wait()
                return await load(images)

            transfer.load = hold  # type: ignore[method-assign]
            await m.publish("a", b"2")
            await is_loading.wait()
            assert m.replicator.waiting == 1
            assert [bytes(each.data) for each in (await m.read("a")).publications] == [b"1", b"2"]
            held.set()
            await m.follow()

    asyncio.run(run())


PLANTED: dict[str, Callable[[StreamImage], StreamImage]] = {
    "changed byte": lambda image: replace(
        image, publications=[replace(image.publications[0], data=Raw(b"x")), *image.publications[1:]]
    ),
    "wrong epoch": lambda image: replace(image, position=StreamPosition(image.position.offset, "WRONG")),
    "lost number": lambda image: replace(image, producers=()),
    "missing publication": lambda image: replace(
        image,
        oldest=image.oldest + 1,
        publications=image.publications[1:],
        publication_expiries_s=image.publication_expiries_s[1:],
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_difference_is_found_and_repaired(path: str, planted: str) -> None:
    """The verification lists exactly this channel. The next verification finds no difference."""

    async def run() -> None:
        async with migration(memory(), sqlite(path)) as m:
            for channel in "abc":
                for seq in (1, 2):
                    await m.publish(channel, producer="p", seq=seq)
            await m.follow()
            await m.new.load([PLANTED[planted](await m.image("b"))])
            assert {each.partition(":")[0] for each in await m.verify()} == {"b"}
            await m.follow()
            assert await m.verify() == []

    asyncio.run(run())


def test_a_channel_that_only_the_new_engine_has_is_found(path: str) -> None:
    """The verification lists it and removes it."""

    async def run() -> None:
        async with migration(memory(), sqlite(path)) as m:
            await m.publish("a")
            await m.follow()
            image = await m.image("a")
            await m.new.load([replace(image, channel="z")])
            assert await m.verify() == ["z: the old engine has nothing of it"]
            assert await m.verify() == []

    asyncio.run(run())


def test_an_interrupted_migration_continues(path: str) -> None:
    """Channels that are equal already are not written again, and what has changed meanwhile is."""

    async def run() -> None:
        old = memory()
        async with migration(old, sqlite(path)) as m:
            for number in range(300):
                await m.publish(f"channel-{number}")
            await m.follow()
        async with migration(old, sqlite(path)) as m:
            await m.publish("channel-7")
            written: list[str] = []
            transfer = m.mirror.replicator._new
            load = transfer.load

            async def record(images: Sequence[StreamImage]) -> Sequence[str]:
                written.extend(image.channel for image in images)
                return await load(images)

            transfer.load = record  # type: ignore[method-assign]
            await m.follow()
            assert set(written) == {"channel-7"}
            assert await m.verify() == []

    asyncio.run(run())
