"""The processes of the simulation: the hub, and workers with a real node. Each has turns and timers of its own."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from beaconfire.base.clock import ManualClock
from beaconfire.base.loop import Runtime
from beaconfire.base.timers import Timers
from beaconfire.engines.guard import guard_engine
from beaconfire.engines.hub import EngineHub
from beaconfire.engines.port import Engine
from beaconfire.engines.remote import remote_engine
from beaconfire.testing import control_calls
from tests.fakes.events import EventRecorder
from tests.simulation.node import Rules, SimulatedNode
from tests.simulation.steps import RandomSteps
from tests.simulation.workers.network import Endpoint, MakeProtocol, MemoryListener, Network
from tests.simulation.workers.streams import HubStreams, RecordingBroker, check_announcements

VERSION = "1.2.3"
KILL_S = 1.0
END_S = 20.0
"""Longer than anything waits in a process that is cut off."""


def inner_engine(
    streams: HubStreams, steps: RandomSteps | None, timers: Timers, timeout_s: float, events: EventRecorder
) -> Engine:
    """The engine of the hub. With `steps` its calls suspend."""
    memory = streams.engine
    engine = Engine(
        memory.name, RecordingBroker(streams), memory.presence, memory.control, suspends=False, keeps_order=True
    )
    if steps is None:
        return engine
    suspending = control_calls(replace(engine, suspends=True, keeps_order=False), steps)
    return guard_engine(suspending, timeout_s, timers, events)


class HubProcess:
    """`dying` is set when the process has been killed, and done when nothing of it is left."""

    def __init__(
        self,
        rng: random.Random,
        clock: ManualClock,
        network: Network,
        number: int,
        make_engine: Callable[[Timers], Engine],
        events: EventRecorder,
    ) -> None:
        self.turns: deque[Callable[[], None]] = deque()
        self.timers = Timers(clock)
        runtime = Runtime(self.turns.append, self.timers, self.timers, rng.random)
        self.hub = EngineHub(make_engine(self.timers), runtime, events, f"hub-{number}", VERSION)
        self._listener = MemoryListener(network)
        self.dying: asyncio.Task[None] | None = None
        self.ends_s = 0.0
        """When nothing of a killed process may be left."""

    async def start(self) -> None:
        await self.hub.start(self._listener)

    def kill(self) -> None:
        """What the connections have not taken is lost, and calls end between any two steps."""
        for connection in list(self.hub._connections):
            connection.close("killed")
        self.turns.clear()
        self.dying = asyncio.ensure_future(self.hub.stop())
        self.ends_s = self.timers.clock.now_s() + END_S


class WorkerNode(SimulatedNode):
    """A worker from its start to its end. A killed worker is cut off first: what it does then has no effect."""

    def __init__(
        self,
        rules: Rules,
        uid: str,
        clock: ManualClock,
        network: Network,
        streams: HubStreams,
        keeps_order: bool,
        timeout_s: float,
    ) -> None:
        self._network = network
        self._is_cut_off = False
        self.timers = Timers(clock)
        turns: deque[Callable[[], None]] = deque()
        runtime = Runtime(turns.append, self.timers, self.timers, rules.rng.random)
        remote = remote_engine("/hub", runtime, VERSION, keeps_order=keeps_order, open_connection=self._open)
        self.link = remote.link
        self.endpoints: list[Endpoint] = []
        engine = guard_engine(remote, timeout_s, self.timers, rules.recorder)
        super().__init__(rules, uid, engine, turns, self.timers)
        check_announcements(self.node.listener, streams)
        self._links_lost = 0
        self._count_lost_links()
        self.starting: asyncio.Task[None] | None = None
        self.dying: asyncio.Task[None] | None = None
        self.ends_s = 0.0
        """When nothing of a killed process may be left."""

    def _count_lost_links(self) -> None:
        listener: Any = self.node.listener
        on_link_down = listener.on_link_down

        def count(channels: Sequence[str] | None) -> None:
            self._links_lost += 1
            on_link_down(channels)

        listener.on_link_down = count

    @property
    def links_lost(self) -> int:
        return self._links_lost

    async def _open(self, make_protocol: MakeProtocol, path: str) -> Endpoint:
        await self._network.connecting.wait()
        if self._is_cut_off:
            raise ConnectionRefusedError(111, "cut off")
        end = self._network.open(make_protocol)
        self.endpoints = [end]
        return end

    def start(self) -> None:
        self.starting = asyncio.ensure_future(self.node.start())

    @property
    def has_failed(self) -> bool:
        """The hub was not there, so the process has ended."""
        started = self.starting
        return (started is not None and started.done()) and (started.cancelled() or started.exception() is not None)

    @property
    def is_ready(self) -> bool:
        """The node has started. Its link may be down."""
        started = self.starting
        return started is not None and started.done() and not self.has_failed and self.dying is None

    @property
    def is_up(self) -> bool:
        return self.is_ready and self.link.state().up

    @property
    def attached(self) -> set[str]:
        return set(self.node.work.attachments._attached)

    def kill(self) -> None:
        self._is_cut_off = True
        for end in self.endpoints:
            end.is_stalled = False
            end.cut()
        self.dying = asyncio.ensure_future(self._die())
        self.ends_s = self.timers.clock.now_s() + END_S

    async def _die(self) -> None:
        if self.starting is not None and not self.starting.done():
            self.starting.cancel()
            await asyncio.wait([self.starting])
        await self.node.stop(KILL_S)


def run_turns(processes: Iterable[HubProcess | WorkerNode]) -> None:
    for process in processes:
        while process.turns:
            process.turns.popleft()()
