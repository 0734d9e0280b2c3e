"""The interface between the suite and an engine under test. A new engine needs one subclass here and one line in
`ENGINES`. Tests that need failures, several nodes or a link run for the engines that have them.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar

from msgspec import Raw
from msgspec.structs import replace

from beaconfire.base.clock import Clock, ManualClock
from beaconfire.base.timers import Timers
from beaconfire.engines.guard import GuardedEngine, guard_engine
from beaconfire.engines.interceptor import EngineCall, InterceptedBroker
from beaconfire.engines.memory import memory_engine, random_epoch
from beaconfire.engines.port import (
    Durability,
    Engine,
    HistoryOptions,
    HistoryPage,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.engines.sqlite import sqlite_engine
from beaconfire.model.events import NoEvents
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.testing import ManualCalls, SharedStore, control_calls
from tests.fakes.events import EventRecorder
from tests.fakes.hub import LocalHub, wait_until
from tests.fakes.migration import with_migration

T = TypeVar("T")

SCENARIO_TIMEOUT_S = 30.0

TIMEOUT_S = 3.0
"""The deadline of a call to a guarded engine."""

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
        self.links: list[tuple[str, Sequence[str] | None]] = []
        """What the broker has said about its link: "down" or "up", and the channels."""
        self.expects_link_events = False
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
        assert self.expects_link_events, "no link was lost"
        self.links.append(("down", channels))

    def on_link_up(self, channels: Sequence[str] | None) -> None:
        assert self.expects_link_events, "no link was lost"
        self.links.append(("up", channels))

    def on_control(self, message: bytes) -> None:
        self.control.append(message)

    def on_survey(self, request: bytes) -> bytes:
        return self.answer + b" " + request

    def _receive(self, entry: Announced | tuple[str, str, ClientInfo]) -> None:
        self.received.append(entry)
        self._more.set()


class Member:
    """One node with its engine."""

    engine: Engine
    node: Node

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.node = Node()

    async def start(self, uid: str) -> None:
        await self.engine.broker.start(self.node)
        await self.engine.control.start(uid, self.node)

    async def stop(self) -> None:
        await self.engine.control.stop()
        await self.engine.broker.stop()

    async def publish(self, channel: str, data: bytes = b"{}", options: PublishOptions = KEPT) -> PublishOutcome:
        return await self.engine.broker.publish(channel, Raw(data), options)

    async def offsets(self, channel: str, options: HistoryOptions = HISTORY) -> list[int]:
        """What history holds, oldest first."""
        page = await self.engine.broker.history(channel, options, -1)
        return [publication.offset for publication in page.publications]


class Harness(Member):
    """A started engine, its node, and control over the time and over failures.

    The engine of a harness that `can_fail` is behind a guard, and its calls run through `calls` inside the guard.
    """

    can_fail: ClassVar[bool] = False
    has_several_nodes: ClassVar[bool] = False
    has_link: ClassVar[bool] = False
    durabilities: Sequence[Durability] = ("memory",)
    """The durabilities that the engine offers."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.events = EventRecorder()
        self.calls = ManualCalls()
        self.prepare()
        super().__init__(self.make_engine())
        self.members: list[Member] = [self]

    def prepare(self) -> None:
        """Makes what the engines of all nodes share."""

    def make_engine(self) -> Engine:
        """The engine of one more node. All engines of a harness share their data."""
        raise NotImplementedError

    async def join(self, uid: str) -> Member:
        """Starts one more node, if the engine has several."""
        member = Member(self.make_engine())
        self.members.append(member)
        await member.start(uid)
        return member

    async def open(self) -> None:
        """Starts an engine without any data of earlier engines."""
        await self.start(NODE)

    async def close(self) -> None:
        """Stops all nodes."""
        for member in self.members:
            await member.stop()

    async def advance(self, seconds: float) -> None:
        """Lets this much time pass for the engine and its guard."""
        self.clock.advance(seconds)
        self.timers.run_due()

    async def settle(self) -> None:
        """Waits until all nodes have received everything that was announced or sent before."""

    async def lose_link(self) -> None:
        """This node loses its link to the engine, and the engine knows it, if the engine has a link."""
        raise NotImplementedError

    async def restore_link(self) -> None:
        """The link works again, and the node was told."""
        raise NotImplementedError


class MemoryHarness(Harness):
    """The memory engine on a manual clock. Every announcement is made before the call that causes it returns."""

    def make_engine(self) -> Engine:
        return memory_engine(self.clock)


class GuardedMemoryHarness(MemoryHarness):
    """The memory engine behind the guard. Its calls can be held back and fail."""

    can_fail = True

    def make_engine(self) -> Engine:
        return self.guard(with_migration(super().make_engine()))

    def guard(self, engine: Engine) -> Engine:
        return guard_engine(control_calls(engine, self.calls), TIMEOUT_S, self.timers, self.events)


class Directly:
    """Implements `CallInterceptor`: changes nothing."""

    async def call(
        self, name: EngineCall, running: Coroutine[Any, Any, T], *subject: object, waits_s: float = 0.0
    ) -> T:
        return await running


class DiskBroker(InterceptedBroker):
    """Asks for durability `disk` where the tests ask for `memory`, so that all streams are in the file."""

    def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Coroutine[Any, Any, PublishOutcome]:
        options = replace(options, history=_on_disk(options.history))
        return super().publish(channel, data, options, info, tags)

    def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> Coroutine[Any, Any, HistoryPage]:
        return super().history(channel, _on_disk(options), limit, since, reverse)

    def positions(self, channels: Mapping[str, HistoryOptions]) -> Coroutine[Any, Any, dict[str, StreamPosition]]:
        return super().positions({channel: _on_disk(options) for channel, options in channels.items()})


def _on_disk(options: HistoryOptions) -> HistoryOptions:
    return replace(options, durability="disk") if options.enabled and options.durability == "memory" else options


def sqlite_on_file(folder: str, clock: Clock) -> Engine:
    live = memory_engine(clock)
    return sqlite_engine(f"{folder}/history.db", live, live.broker, clock, random_epoch, NoEvents())


class SqliteHarness(Harness):
    """The SQLite engine on a file of its own, behind a guard."""

    can_fail = True
    durabilities = ("memory", "disk")

    def prepare(self) -> None:
        self.folder = tempfile.TemporaryDirectory()

    def make_engine(self) -> Engine:
        engine = with_migration(sqlite_on_file(self.folder.name, self.clock))
        guarded = guard_engine(control_calls(engine, self.calls), TIMEOUT_S, self.timers, self.events)
        return replace(guarded, broker=DiskBroker(guarded.broker, Directly()))

    async def close(self) -> None:
        await super().close()
        self.folder.cleanup()


class InterleavedCalls(ManualCalls):
    """Every call also waits for some turns of the event loop, before and after its effect."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    async def before(self, call: str, subject: str) -> None:
        await self._wait()
        await super().before(call, subject)

    async def after(self, call: str, subject: str) -> None:
        await super().after(call, subject)
        await self._wait()

    async def _wait(self) -> None:
        for _ in range(self._rng.randrange(4)):
            await asyncio.sleep(0)


class SharedHarness(GuardedMemoryHarness):
    """Several nodes with one store. Calls interleave, and announcements arrive later in a random order of channels."""

    has_several_nodes = True
    has_link = True

    def prepare(self) -> None:
        rng = random.Random(0)
        self.calls = InterleavedCalls(rng)
        self._store = SharedStore(self.timers, rng.random, asyncio.get_running_loop().call_soon)

    def make_engine(self) -> Engine:
        return self.guard(with_migration(self._store.connect()))

    async def settle(self) -> None:
        self._store.deliver_all()

    async def lose_link(self) -> None:
        self.node.expects_link_events = True
        self._store.links[0].lose()

    async def restore_link(self) -> None:
        self._store.links[0].restore()


class RemoteHarness(GuardedMemoryHarness):
    """Several nodes with a hub, whose inner engine never suspends. Between them are real sockets."""

    has_several_nodes = True
    has_link = True

    def prepare(self) -> None:
        rng = random.Random(0)
        self.calls = InterleavedCalls(rng)
        self._folder = tempfile.TemporaryDirectory()
        self._inner = with_migration(self.make_inner_engine(rng))
        self._local = LocalHub(f"{self._folder.name}/hub", self._inner, self.timers)
        self._workers: list[Engine] = []

    def make_inner_engine(self, rng: random.Random) -> Engine:
        """The engine of the hub."""
        return memory_engine(self.clock)

    def make_engine(self) -> Engine:
        worker = self._local.worker(self._inner.durabilities)
        self._workers.append(worker)
        return self.guard(worker)

    async def open(self) -> None:
        await self._local.start()
        await super().open()

    async def close(self) -> None:
        await super().close()
        await self._local.stop()
        self._folder.cleanup()

    async def settle(self) -> None:
        """Everything that the hub sends to a node stays in order, so a ping arrives after it."""
        for worker in self._workers:
            if worker.state().up:
                await worker.broker.ping()

    async def lose_link(self) -> None:
        self.node.expects_link_events = True
        links = len(self.node.links)
        self._local.cut(NODE)
        await wait_until(lambda: len(self.node.links) > links and self._local.connection_of(NODE) is None)

    async def restore_link(self) -> None:
        links = len(self.node.links)
        self._local.reconnect()
        await wait_until(lambda: len(self.node.links) > links)


class RemoteSuspendingHarness(RemoteHarness):
    """The inner engine suspends, and its calls interleave."""

    def make_inner_engine(self, rng: random.Random) -> Engine:
        return control_calls(super().make_inner_engine(rng), InterleavedCalls(rng))


class RemoteSqliteHarness(RemoteHarness):
    """The inner engine is the SQLite engine, and all streams are in its file."""

    durabilities = ("memory", "disk")

    def make_inner_engine(self, rng: random.Random) -> Engine:
        return sqlite_on_file(self._folder.name, self.clock)

    def make_engine(self) -> Engine:
        guarded = super().make_engine()
        assert isinstance(guarded, GuardedEngine)
        return replace(guarded, broker=DiskBroker(guarded.broker, Directly()))


ENGINES: dict[str, type[Harness]] = {
    "memory": MemoryHarness,
    "memory-guarded": GuardedMemoryHarness,
    "sqlite": SqliteHarness,
    "shared": SharedHarness,
    "remote-memory": RemoteHarness,
    "remote-suspending": RemoteSuspendingHarness,
    "remote-sqlite": RemoteSqliteHarness,
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
