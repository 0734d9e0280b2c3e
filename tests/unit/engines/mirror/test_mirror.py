"""A migration while publications go on: memory to SQLite and back."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from beaconfire.base.clock import Clock, ManualClock, SystemClock
from beaconfire.base.errors import StorageFull
from beaconfire.engines.memory import memory_engine, random_epoch
from beaconfire.engines.mirror import MirrorEngine, mirror_engine
from beaconfire.engines.port import Engine, HistoryOptions, HistoryPage, PublishOptions
from beaconfire.engines.sqlite import sqlite_engine
from beaconfire.engines.transfer import StreamImage, Transferable
from beaconfire.model.events import (
    EventSink,
    MigrationFailed,
    MigrationProgressed,
    MigrationReadChanged,
    NoEvents,
)
from beaconfire.model.position import StreamPosition
from tests.conformance.engines.harness import Node
from tests.fakes.events import EventRecorder

CHANNELS = int(os.environ.get("MIGRATION_CHANNELS", "2000"))
"""How many channels the migration under load has."""

CLOCK = SystemClock()
HISTORY = HistoryOptions(size=5, ttl_s=3600.0, meta_ttl_s=86400.0)


def memory(clock: Clock = CLOCK, history_bytes_max: int = 2**30) -> Engine:
    return memory_engine(clock, history_bytes_max=history_bytes_max)


def sqlite(path: str, clock: Clock = CLOCK) -> Engine:
    live = memory_engine(clock)
    return sqlite_engine(path, live, live.broker, clock, random_epoch, NoEvents())


class Migration:
    """A started mirror, and what a test does with it."""

    def __init__(self, mirror: MirrorEngine) -> None:
        self.mirror = mirror
        self.broker = mirror.broker
        self.replicator = mirror.replicator
        self.history = replace(HISTORY, durability=mirror.old.durabilities[-1])
        assert isinstance(mirror.old, Transferable)
        assert isinstance(mirror.new, Transferable)
        self.old = mirror.old.transfer()
        self.new = mirror.new.transfer()

    async def publish(self, channel: str, data: bytes = b"{}", **options: Any) -> StreamPosition:
        outcome = await self.broker.publish(channel, Raw(data), PublishOptions(self.history, **options))
        return outcome.position

    async def read(self, channel: str, since: StreamPosition | None = None) -> HistoryPage:
        return await self.broker.history(channel, self.history, -1, since)

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Waits for the task of the mirror."""
        while not condition():  # noqa: ASYNC110 - the state of the mirror has no event
            await asyncio.sleep(0)

    async def follow(self) -> None:
        """Waits until the new engine has everything."""
        await self.wait(lambda: self.replicator.phase == "following" and not self.replicator.waiting)

    async def verify(self) -> Sequence[str]:
        """The differences that a verification lists."""
        number = (await self.mirror.migration.verify()).verification
        await self.wait(lambda: (done := self.replicator.verified) is not None and done.number == number)
        report = (await self.mirror.migration.status()).verified
        assert report is not None
        assert (report.different == 0) == (report.old == report.new)
        return [f"{each.channel}: {each.what}" for each in report.differences]

    async def image(self, channel: str) -> StreamImage:
        [image] = await self.old.export({channel: 0}, CLOCK.unix_s())
        return image


@asynccontextmanager
async def migration(
    old: Engine, new: Engine, clock: Clock = CLOCK, events: EventSink | None = None, timeout_s: float = 30.0
) -> AsyncIterator[Migration]:
    mirror = mirror_engine(old, new, clock.unix_s, events or NoEvents(), retry_s=0.001, timeout_s=timeout_s)
    await mirror.broker.start(Node())
    try:
        yield Migration(mirror)
    finally:
        await mirror.broker.stop()


@pytest.fixture
def path() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        yield f"{folder}/new.db"


async def failing(images: Sequence[StreamImage]) -> Sequence[str]:
    """`Transfer.load` of an engine without room."""
    raise StorageFull("the disk is full")


async def read_file(path: str, channel: str, since: StreamPosition) -> HistoryPage:
    """Reads a channel from a file that no engine uses."""
    engine = sqlite(path)
    await engine.broker.start(Node())
    page = await engine.broker.history(channel, replace(HISTORY, durability="disk"), -1, since)
    await engine.broker.stop()
    return page


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


def test_a_full_disk_of_the_new_engine_fails_no_publish(path: str) -> None:
    """Publishing and reading go on at the old engine. When there is room, the new engine gets what is missing."""

    async def run() -> None:
        async with migration(memory(), sqlite(path)) as m:
            m.broker.read_percent = 100.0
            await m.publish("a", b"1")
            await m.follow()
            transfer = m.mirror.replicator._new
            load = transfer.load

            transfer.load = failing  # type: ignore[method-assign]
            for number in range(3):
                await m.publish("a", b"%d" % number)
                await m.publish("b", b"%d" % number)
            await m.wait(lambda: m.replicator.problem == "the disk is full")
            assert len((await m.read("a")).publications) == 4
            assert m.replicator.waiting == 2
            transfer.load = load  # type: ignore[method-assign]
            await m.follow()
            assert m.replicator.problem == ""
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


@pytest.mark.parametrize("read_percent", [50.0, 100.0])
def test_the_original_is_the_new_engine_after_a_migration_that_reads_all_of_it(path: str, read_percent: float) -> None:
    """Otherwise it is the old one. The other one continues all positions as well, but in new epochs: so no client takes
    one of the two for the other, whichever is started."""

    async def run() -> None:
        old_path = f"{path}-old"
        async with migration(sqlite(old_path), sqlite(path)) as m:
            position = await m.publish("a")
            await m.mirror.migration.set_read_percent(read_percent)
            await m.follow()
        for each, is_original in ((old_path, read_percent < 100), (path, read_percent == 100)):
            page = await read_file(each, "a", position)
            assert page.continues
            assert (page.position == position) is is_original

    asyncio.run(run())


def test_a_new_engine_without_all_streams_does_not_become_the_original(path: str) -> None:
    """At the end of the server it could not be written."""

    async def run() -> None:
        recorder = EventRecorder()
        async with migration(memory(), sqlite(path), events=recorder) as m:
            position = await m.publish("a")
            await m.follow()
            m.replicator._new.load = failing  # type: ignore[method-assign]
            await m.publish("a")
        assert recorder.events[-1] == MigrationFailed("the disk is full")
        page = await read_file(path, "a", position)
        assert page.continues
        assert page.position.offset == position.offset
        assert page.position.epoch != position.epoch

    asyncio.run(run())


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


# At the start of a volatile engine


async def kill(m: Migration) -> None:
    """Ends the mirror as the end of the process does: nothing is handed over."""
    task, m.replicator._task = m.replicator._task, None
    assert task is not None
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_memory_engine_gets_what_the_new_engine_has_kept(path: str, is_killed: bool) -> None:
    """After a clean end with the same epochs. After a kill, the newest publications may be missing, so the epochs are
    new, and positions up to the last one that was kept continue."""

    async def run() -> None:
        async with migration(memory(), sqlite(path)) as m:
            position = await m.publish("a", producer="p", seq=1)
            await m.follow()
            if is_killed:
                await kill(m)
                lost = await m.publish("a")
        recorder = EventRecorder()
        async with migration(memory(), sqlite(path), events=recorder) as m:
            assert recorder.events == [MigrationProgressed("restored", 1)]
            page = await m.read("a", position)
            assert page.continues
            assert (page.position == position) is not is_killed
            if is_killed:
                assert not (await m.read("a", lost)).continues
            assert (await m.publish("a", producer="p", seq=1)).offset == position.offset
            assert await m.verify() == []
        page = await read_file(path, "a", position)
        assert page.continues

    asyncio.run(run())


def test_a_memory_engine_that_is_too_small_does_not_start(path: str) -> None:
    """It would drop publications, and the file as well. The file is not changed, and can be used as before."""

    async def run() -> None:
        positions = {}
        async with migration(memory(), sqlite(path)) as m:
            for number in range(50):
                positions[f"channel-{number}"] = await m.publish(f"channel-{number}", b"x" * 1000)
            await m.follow()
        with pytest.raises(StorageFull, match=r"raise engine\.history_max_bytes"):
            async with migration(memory(history_bytes_max=20_000), sqlite(path)):
                raise AssertionError("the engine has started")
        for channel, position in positions.items():
            page = await read_file(path, channel, position)
            assert page.position == position
            assert len(page.publications) == 0
            assert page.continues

    asyncio.run(run())


# Expiry


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


# Trouble of the new engine


def test_a_read_that_hangs_is_answered_by_the_old_engine(path: str) -> None:
    """The other channels are then not read from the new engine before it was written."""

    async def run() -> None:
        async with migration(memory(), sqlite(path), timeout_s=0.05) as m:
            m.broker.read_percent = 100.0
            for channel in "ab":
                await m.publish(channel, b"1")
            await m.follow()
            asked = []

            async def hang(channel: str, *arguments: Any) -> HistoryPage:
                asked.append(channel)
                await asyncio.Event().wait()
                raise AssertionError("never")

            read, m.broker._new.history = m.broker._new.history, hang  # type: ignore[method-assign,assignment]
            m.replicator._new.load, load = failing, m.replicator._new.load  # type: ignore[method-assign]
            for channel in "ab":
                assert len((await m.read(channel)).publications) == 1
            assert asked == ["a"]
            assert m.replicator.problem
            m.broker._new.history, m.replicator._new.load = read, load  # type: ignore[method-assign]
            await m.wait(lambda: not m.replicator.problem)
            assert await m.verify() == []

    asyncio.run(run())


def test_events_tell_what_happens(path: str) -> None:
    """Each step, the first of several failures and the end of the failure, and each change of the percentage."""

    async def run() -> None:
        recorder = EventRecorder()
        async with migration(memory(), sqlite(path), events=recorder) as m:
            await m.publish("a")
            await m.follow()
            await m.mirror.migration.set_read_percent(30.0)
            assert await m.verify() == []
            m.replicator._new.load, load = failing, m.replicator._new.load  # type: ignore[method-assign]
            await m.publish("a")
            await m.wait(lambda: bool(m.replicator.problem))
            m.replicator._new.load = load  # type: ignore[method-assign]
            await m.wait(lambda: not m.replicator.problem)
        kinds = (MigrationProgressed, MigrationFailed, MigrationReadChanged)
        events = [event for event in recorder.events if isinstance(event, kinds)]
        copied, *rest = events
        assert isinstance(copied, MigrationProgressed)
        assert copied.step == "copied"
        assert rest == [
            MigrationReadChanged(30.0),
            MigrationProgressed("verified", 1),
            MigrationFailed("the disk is full"),
            MigrationProgressed("recovered", 0),
        ]

    asyncio.run(run())
