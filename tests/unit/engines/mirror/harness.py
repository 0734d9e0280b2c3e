"""A mirror of two started engines, and what tests do with it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from beaconfire.base.clock import Clock, SystemClock
from beaconfire.base.errors import StorageFull
from beaconfire.engines.memory import memory_engine, random_epoch
from beaconfire.engines.mirror import MirrorEngine, mirror_engine
from beaconfire.engines.port import Engine, HistoryOptions, HistoryPage, PublishOptions
from beaconfire.engines.sqlite import sqlite_engine
from beaconfire.engines.transfer import StreamImage, Transferable
from beaconfire.model.events import (
    EventSink,
    NoEvents,
)
from beaconfire.model.position import StreamPosition
from tests.conformance.engines.harness import Node

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
