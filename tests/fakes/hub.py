"""A hub at a real socket in the same event loop, and the engines of its workers. Only a test moves their clocks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from beaconfire.base.backoff import DELAY_MAX_S
from beaconfire.base.clock import ManualClock
from beaconfire.base.loop import Runtime
from beaconfire.base.timers import Timers
from beaconfire.engines.hub import EngineHub, HubSocket
from beaconfire.engines.hub.connection import HubConnection
from beaconfire.engines.port import Durability, Engine
from beaconfire.engines.remote import RemoteEngine, remote_engine
from beaconfire.engines.remote.link import Link
from tests.fakes.events import EventRecorder

VERSION = "1.2.3"


def runtime(timers: Timers) -> Runtime:
    """A runtime on the running event loop."""
    return Runtime(asyncio.get_running_loop().call_soon, timers, timers, random.Random(0).random)


class LocalHub:
    """`timers` are those of the hub. The links of the workers have a clock of their own, so that a test decides when
    they reconnect."""

    def __init__(self, path: str, engine: Engine, timers: Timers, events: EventRecorder | None = None) -> None:
        self.path = path
        self.engine = engine
        self.events = events if events is not None else EventRecorder()
        self._timers = timers
        self._clock = ManualClock()
        self.links = Timers(self._clock)
        self.worker_links: list[Link] = []
        self._starts = 0
        self.hub = self._make()

    def _make(self) -> EngineHub:
        self._starts += 1
        return EngineHub(self.engine, runtime(self._timers), self.events, f"hub-{self._starts}", VERSION)

    async def start(self) -> None:
        await self.hub.start(HubSocket(self.path))

    async def stop(self) -> None:
        await self.hub.stop()

    def connection_of(self, node: str) -> HubConnection | None:
        """The connection of a live node."""
        return next((each for each in self.hub._connections if each.node == node), None)

    async def restart(self) -> None:
        """Starts another hub with the same engine."""
        self.hub = self._make()
        await self.start()

    def worker(self, durabilities: tuple[Durability, ...] = ("memory",)) -> RemoteEngine:
        """The engine of one more worker."""
        engine = remote_engine(self.path, runtime(self.links), VERSION, durabilities, self.engine.keeps_order)
        self.worker_links.append(engine.link)
        return engine

    def cut(self, node: str) -> None:
        """Ends the connection of a live node."""
        connection = self.connection_of(node)
        assert connection is not None, "the node is not live"
        connection.close("cut by a test")

    def reconnect(self) -> None:
        """Lets the time pass after which every link tries to connect again."""
        self.advance_links(DELAY_MAX_S)

    def advance_links(self, seconds: float) -> None:
        """Lets this much time pass for all links."""
        self._clock.advance(seconds)
        self.links.run_due()


async def wait_until(condition: Callable[[], bool]) -> None:
    """Waits for something that the event loop is about to do. Only the deadline of the test limits the wait."""
    while not condition():  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)
