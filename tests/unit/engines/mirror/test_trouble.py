"""A new engine that fails or hangs."""

from __future__ import annotations

import asyncio
from typing import Any

from beaconfire.engines.port import HistoryPage
from beaconfire.model.events import (
    MigrationFailed,
    MigrationProgressed,
    MigrationReadChanged,
)
from tests.fakes.events import EventRecorder
from tests.unit.engines.mirror.harness import failing, memory, migration, sqlite


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
