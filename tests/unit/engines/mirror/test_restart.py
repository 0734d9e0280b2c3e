"""The end of a mirror, and its next start: which engine is the original, and what a memory engine gets back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from beaconfire.base.errors import StorageFull
from beaconfire.engines.transfer import StreamImage
from beaconfire.model.events import (
    MigrationFailed,
    MigrationProgressed,
)
from tests.fakes.events import EventRecorder
from tests.unit.engines.mirror.harness import Migration, failing, memory, migration, read_file, sqlite


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


def test_a_restored_engine_is_not_copied_again(path: str) -> None:
    """It has exactly what the new engine has. Changes are written as usual."""

    async def run() -> None:
        async with migration(memory(), sqlite(path)) as m:
            for number in range(100):
                await m.publish(f"channel-{number}")
            await m.follow()
        async with migration(memory(), sqlite(path)) as m:
            written: list[tuple[str, int]] = []
            transfer = m.replicator._new
            load = transfer.load

            async def record(images: Sequence[StreamImage]) -> Sequence[str]:
                written.extend((image.channel, image.since) for image in images)
                return await load(images)

            transfer.load = record  # type: ignore[method-assign]
            await m.publish("channel-7")
            await m.follow()
            assert written == [("channel-7", 1)]

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
