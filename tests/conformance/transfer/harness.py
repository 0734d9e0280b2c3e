"""Two started engines with different monotonic clocks, and a copy from one to the other. A new engine that offers a
transfer needs one line in `ENGINES`."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from msgspec import Raw
from msgspec.structs import replace

from beaconfire.base.clock import Clock, ManualClock
from beaconfire.engines.copying import StreamCopy
from beaconfire.engines.memory import memory_engine, random_epoch
from beaconfire.engines.port import Durability, Engine, HistoryOptions, HistoryPage, PublishOptions, PublishOutcome
from beaconfire.engines.sqlite import sqlite_engine
from beaconfire.engines.transfer import StreamImage, Transferable
from beaconfire.model.events import NoEvents
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo
from tests.conformance.engines.harness import Node

SCENARIO_TIMEOUT_S = 30.0
HISTORY = HistoryOptions(size=100, ttl_s=60.0, meta_ttl_s=600.0)


class Place:
    """One started engine with its transfer."""

    def __init__(self, engine: Engine, clock: ManualClock, durability: Durability) -> None:
        self.engine = engine
        self.clock = clock
        self.history = replace(HISTORY, durability=durability)
        self.node = Node()

    async def start(self) -> None:
        await self.engine.broker.start(self.node)
        assert isinstance(self.engine, Transferable)
        self.transfer = self.engine.transfer()

    async def stop(self) -> None:
        await self.engine.broker.stop()

    async def publish(
        self,
        channel: str,
        data: bytes = b"{}",
        *,
        history: Mapping[str, object] = {},
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
        **options: object,
    ) -> PublishOutcome:
        """`history` and `options` are fields of `HistoryOptions` and `PublishOptions`."""
        kept = PublishOptions(history=replace(self.history, **history), **options)  # type: ignore[arg-type]
        return await self.engine.broker.publish(channel, Raw(data), kept, info, tags)

    async def read(self, channel: str, since: StreamPosition | None = None) -> HistoryPage:
        return await self.engine.broker.history(channel, self.history, -1, since)

    async def image(self, channel: str, since: int = 0) -> StreamImage | None:
        images = await self.transfer.export({channel: since}, self.clock.unix_s())
        assert [image.channel for image in images] in ([], [channel])
        return images[0] if images else None


class Counter:
    """Implements `ProgressListener`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []

    def progress(self, phase: str, channels: int, total: int) -> None:
        self.calls.append((phase, channels, total))


class Pair:
    """The old and the new engine."""

    def __init__(self, old: str, new: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.listener = Counter()
        self.old = self._place(old, "old", ManualClock(now_s=1000.0))
        self.new = self._place(new, "new", ManualClock(now_s=77.5))

    def _place(self, kind: str, name: str, clock: ManualClock) -> Place:
        durability: Durability = "memory" if kind == "memory" else "disk"
        return Place(ENGINES[kind](f"{self._folder.name}/{name}.db", clock), clock, durability)

    async def start(self) -> None:
        await self.old.start()
        await self.new.start()
        self.copy = StreamCopy(self.old.transfer, self.new.transfer, self.old.clock.unix_s, self.listener)

    async def stop(self) -> None:
        await self.old.stop()
        await self.new.stop()
        self._folder.cleanup()

    def advance(self, seconds: float) -> None:
        self.old.clock.advance(seconds)
        self.new.clock.advance(seconds)

    async def move(self) -> None:
        """A whole copy, after which the old engine is not used any more."""
        await self.copy.copy()
        await self.new.transfer.settle()


def _sqlite(path: str, clock: Clock) -> Engine:
    live = memory_engine(clock)
    return sqlite_engine(path, live, live.broker, clock, random_epoch, NoEvents())


def _memory(path: str, clock: Clock) -> Engine:
    return memory_engine(clock)


ENGINES: dict[str, Callable[[str, Clock], Engine]] = {"memory": _memory, "sqlite": _sqlite}

Scenario: TypeAlias = Callable[[Pair], Awaitable[None]]
Run: TypeAlias = Callable[[Scenario], None]


def run_with(old: str, new: str) -> Run:
    """Returns a function that runs one scenario on two new engines, with a deadline."""

    async def play(scenario: Scenario) -> None:
        pair = Pair(old, new)
        await pair.start()
        try:
            async with asyncio.timeout(SCENARIO_TIMEOUT_S):
                await scenario(pair)
        finally:
            await pair.stop()

    return lambda scenario: asyncio.run(play(scenario))
