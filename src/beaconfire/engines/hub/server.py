"""The hub: accepts the connections of workers, and owns the inner engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.engines.hub.calls import CallContext
from beaconfire.engines.hub.channels import HubChannels
from beaconfire.engines.hub.connection import HubConnection, HubContext
from beaconfire.engines.hub.nodes import HubNodes
from beaconfire.engines.port import Engine
from beaconfire.engines.wire.messages import PROTOCOL, Welcome
from beaconfire.model.events import EventSink, report_error


class EngineHubStatistics(Struct, frozen=True):
    """A snapshot. `attached_channels` are those that at least one worker has attached. `waiting_bytes` is what the
    workers have not read yet."""

    connections: int
    attached_channels: int
    waiting_bytes: int


class Listener(Protocol):
    """What workers connect to. `HubSocket` is the one that processes use."""

    async def serve(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        """Accepts connections from now on, each with a new protocol."""

    def close(self) -> None:
        """Accepts nothing more. Connections that are open stay open. Idempotent."""


class EngineHub:
    """Gives `engine` to the workers that connect. The owner calls `engine.sweep` as in any other process.

    An engine that suspends should be behind a guard, because each of its calls must end. `instance` is a random name
    of this start of the hub, and `version` is that of Beaconfire. Other coroutines of the event loop may run beside the
    hub.
    """

    def __init__(self, engine: Engine, runtime: Runtime, events: EventSink, instance: str, version: str) -> None:
        self._engine = engine
        self._connections: dict[HubConnection, None] = {}
        self._background = BackgroundTasks(lambda error: report_error(events, "hub", error), engine.suspends)
        self._channels = HubChannels(engine.broker, runtime, self._background, lambda: list(self._connections))
        self._nodes = HubNodes(runtime.timers)
        self._context = HubContext(
            Welcome(PROTOCOL, instance, version, engine.name, engine.durabilities, engine.keeps_order),
            engine.suspends,
            engine.immediate,
            CallContext(engine.broker, engine.presence, self._channels, engine.migration),
            self._channels,
            self._nodes,
            runtime,
            events,
            self._connections,
            self._on_last_lost,
        )
        self._listener: Listener | None = None
        self._all_lost = asyncio.Event()

    async def start(self, listener: Listener) -> None:
        """Starts the inner engine, and serves workers from then on. A hub starts once. The hub owns the listener and
        closes it, also if this raises."""
        self._listener = listener
        try:
            await self._engine.broker.start(self._channels)
            await listener.serve(lambda: HubConnection(self._context).stream)
        except BaseException:
            listener.close()
            raise

    async def stop(self) -> None:
        """Closes the listener, ends all connections and the calls that wait, and stops the inner engine. Idempotent."""
        self._context.is_stopped = True
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._connections):
            connection.cancel_calls()
            connection.close("the hub stops")
        await self.wait_until_unused()
        self._channels.close()
        self._nodes.close()
        self._background.cancel()
        await self._engine.broker.stop()

    async def wait_until_unused(self) -> None:
        """Returns when no worker is connected."""
        if self._connections:
            self._all_lost.clear()
            await self._all_lost.wait()

    def statistics(self) -> EngineHubStatistics:
        return EngineHubStatistics(
            len(self._connections),
            len(self._channels),
            sum(connection.stream.waiting_bytes for connection in self._connections),
        )

    def _on_last_lost(self) -> None:
        self._all_lost.set()
