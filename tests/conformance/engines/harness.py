"""What the suite needs of an engine under test. A new engine is one subclass here and one line in `ENGINES`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias

from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.engines.memory import memory_engine
from beaconfire.engines.port import (
    Engine,
    HistoryOptions,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.model.publication import ClientInfo, Publication

SCENARIO_TIMEOUT_S = 30.0

HISTORY = HistoryOptions(size=100, ttl_s=60.0, meta_ttl_s=600.0)
KEPT = PublishOptions(history=HISTORY)


class Announced(NamedTuple):
    """One call of `BrokerEvents.on_publication`."""

    channel: str
    publication: Publication
    epoch: str
    exclude: tuple[str, ...]
    delta: bool = False


class Node:
    """Plays the node at the engine's other side: remembers all that it is told, and may act on it."""

    def __init__(self) -> None:
        self.heard: list[Announced | tuple[str, str, ClientInfo]] = []
        self.control: list[bytes] = []
        self.when_publication: Callable[[Announced], None] = lambda announced: None
        self.answer: bytes = b"pong"
        self._more = asyncio.Event()

    @property
    def publications(self) -> list[Announced]:
        return [entry for entry in self.heard if isinstance(entry, Announced)]

    def payloads(self, channel: str) -> list[bytes]:
        return [bytes(entry.publication.data) for entry in self.publications if entry.channel == channel]

    def offsets(self, channel: str) -> list[int]:
        return [entry.publication.offset for entry in self.publications if entry.channel == channel]

    async def wait_heard(self, count: int) -> None:
        """Returns when it has been told this many things; the scenario's deadline is the limit."""
        while len(self.heard) < count:
            self._more.clear()
            await self._more.wait()

    def on_publication(
        self, channel: str, publication: Publication, epoch: str, exclude: Sequence[str], delta: bool = False
    ) -> None:
        announced = Announced(channel, publication, epoch, tuple(exclude), delta)
        self._hear(announced)
        self.when_publication(announced)

    def on_join(self, channel: str, info: ClientInfo) -> None:
        self._hear(("join", channel, info))

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        self._hear(("leave", channel, info))

    def on_link_lost(self, channels: Sequence[str] | None) -> None:
        raise AssertionError("no link was cut")

    def on_control(self, message: bytes) -> None:
        self.control.append(message)

    def on_survey(self, request: bytes) -> bytes:
        return self.answer + b" " + request

    def _hear(self, entry: Announced | tuple[str, str, ClientInfo]) -> None:
        self.heard.append(entry)
        self._more.set()


class Harness:
    """An engine that is started, its node, and power over time."""

    engine: Engine
    node: Node

    async def open(self) -> None:
        """Makes an engine without any memory of earlier ones, and starts it."""
        raise NotImplementedError

    async def close(self) -> None:
        await self.engine.control.stop()
        await self.engine.broker.stop()

    async def advance(self, seconds: float) -> None:
        """Lets this much time pass for the engine."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Returns when the node has heard everything that was announced before."""
        raise NotImplementedError

    async def publish(self, channel: str, data: bytes = b"{}", options: PublishOptions = KEPT) -> PublishOutcome:
        return await self.engine.broker.publish(channel, Raw(data), options)

    async def offsets(self, channel: str, options: HistoryOptions = HISTORY) -> list[int]:
        """What history holds, oldest first."""
        page = await self.engine.broker.history(channel, options, -1)
        return [publication.offset for publication in page.publications]


class MemoryHarness(Harness):
    """All in one process, time by hand, every announcement made before the call that caused it returns."""

    async def open(self) -> None:
        self.clock = ManualClock()
        self.engine = memory_engine(self.clock)
        self.node = Node()
        await self.engine.broker.start(self.node)
        await self.engine.control.start(self.node)

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def settle(self) -> None:
        pass


ENGINES: dict[str, Callable[[], Harness]] = {
    "memory": MemoryHarness,
}

Scenario: TypeAlias = Callable[[Harness], Awaitable[None]]
Run: TypeAlias = Callable[[Scenario], None]


def run_with(make: Callable[[], Harness]) -> Run:
    """What runs one scenario against a fresh engine, under a deadline, and always closes it."""

    async def play(scenario: Scenario) -> None:
        harness = make()
        await harness.open()
        try:
            async with asyncio.timeout(SCENARIO_TIMEOUT_S):
                await scenario(harness)
        finally:
            await harness.close()

    return lambda scenario: asyncio.run(play(scenario))
