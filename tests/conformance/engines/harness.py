"""The interface between the suite and an engine under test. A new engine needs one subclass here and one line in
`ENGINES`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias

from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.engines.memory import memory_engine
from beaconfire.engines.port import (
    Durability,
    Engine,
    HistoryOptions,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.model.publication import ClientInfo, Publication

SCENARIO_TIMEOUT_S = 30.0

NODE = "node-1"
"""The uid of the node."""

HISTORY = HistoryOptions(size=100, ttl_s=60.0, meta_ttl_s=600.0)
KEPT = PublishOptions(history=HISTORY)


class Announced(NamedTuple):
    """One call of `BrokerEvents.on_publication`."""

    channel: str
    publication: Publication
    epoch: str
    previous: int
    exclude: tuple[str, ...]
    delta: bool = False


class Node:
    """The node of the engine under test. Records all callbacks, and can react to them."""

    def __init__(self) -> None:
        self.received: list[Announced | tuple[str, str, ClientInfo]] = []
        self.control: list[bytes] = []
        self.when_publication: Callable[[Announced], None] = lambda announced: None
        self.answer: bytes = b"pong"
        self._more = asyncio.Event()

    @property
    def publications(self) -> list[Announced]:
        return [entry for entry in self.received if isinstance(entry, Announced)]

    def payloads(self, channel: str) -> list[bytes]:
        return [bytes(entry.publication.data) for entry in self.publications if entry.channel == channel]

    def offsets(self, channel: str) -> list[int]:
        """The offsets in history, oldest first."""
        return [entry.publication.offset for entry in self.publications if entry.channel == channel]

    async def wait_received(self, count: int) -> None:
        """Waits until the node has received this many callbacks. Only the deadline of the scenario limits the wait."""
        while len(self.received) < count:
            self._more.clear()
            await self._more.wait()

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        previous: int,
        exclude: Sequence[str],
        delta: bool = False,
    ) -> None:
        announced = Announced(channel, publication, epoch, previous, tuple(exclude), delta)
        self._receive(announced)
        self.when_publication(announced)

    def on_join(self, channel: str, info: ClientInfo) -> None:
        self._receive(("join", channel, info))

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        self._receive(("leave", channel, info))

    def on_link_down(self, channels: Sequence[str] | None) -> None:
        raise AssertionError("no link was cut")

    def on_link_up(self, channels: Sequence[str] | None) -> None:
        raise AssertionError("no link was cut")

    def on_control(self, message: bytes) -> None:
        self.control.append(message)

    def on_survey(self, request: bytes) -> bytes:
        return self.answer + b" " + request

    def _receive(self, entry: Announced | tuple[str, str, ClientInfo]) -> None:
        self.received.append(entry)
        self._more.set()


class Harness:
    """A started engine, its node, and control over the time."""

    engine: Engine
    node: Node
    durabilities: Sequence[Durability] = ("memory",)
    """The durabilities that the engine offers."""

    async def open(self) -> None:
        """Creates and starts an engine without any data of earlier engines."""
        raise NotImplementedError

    async def close(self) -> None:
        await self.engine.control.stop()
        await self.engine.broker.stop()

    async def advance(self, seconds: float) -> None:
        """Lets this much time pass for the engine."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Waits until the node has received all announcements that were made before."""
        raise NotImplementedError

    async def publish(self, channel: str, data: bytes = b"{}", options: PublishOptions = KEPT) -> PublishOutcome:
        return await self.engine.broker.publish(channel, Raw(data), options)

    async def offsets(self, channel: str, options: HistoryOptions = HISTORY) -> list[int]:
        """What history holds, oldest first."""
        page = await self.engine.broker.history(channel, options, -1)
        return [publication.offset for publication in page.publications]


class MemoryHarness(Harness):
    """The memory engine on a manual clock. Every announcement is made before the call that causes it returns."""

    async def open(self) -> None:
        self.clock = ManualClock()
        self.engine = memory_engine(self.clock)
        self.node = Node()
        await self.engine.broker.start(self.node)
        await self.engine.control.start(NODE, self.node)

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
    """Returns a function that runs one scenario on a new engine, with a deadline, and always closes the engine."""

    async def play(scenario: Scenario) -> None:
        harness = make()
        await harness.open()
        try:
            async with asyncio.timeout(SCENARIO_TIMEOUT_S):
                await scenario(harness)
        finally:
            await harness.close()

    return lambda scenario: asyncio.run(play(scenario))
