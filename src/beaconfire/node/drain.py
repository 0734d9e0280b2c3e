"""A graceful shutdown, spread over a window, so that the clients of a rolling deploy do not reconnect all at once.

The steps: readiness turns red; the load balancer gets time to notice; the node stops listening; sessions are closed in
batches over a window with a code that tells clients to reconnect; the rest finishes or is cut off. A hard deadline,
`server.shutdown_timeout`, covers all steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from beaconfire.base.clock import Clock
from beaconfire.base.errors import SHUTDOWN
from beaconfire.model.events import DrainAdvanced, EventSink
from beaconfire.session.registry import SessionRegistry
from beaconfire.session.session import Session
from beaconfire.transports.options import ServerOptions

ROUND_S = 0.1
"""Seconds between two batches."""


class Drain:
    """One shutdown of one node. `hurry` skips every wait that is left."""

    def __init__(
        self,
        registry: SessionRegistry[Session],
        options: ServerOptions,
        clock: Clock,
        events: EventSink,
        go_unready: Callable[[], None],
        stop_listening: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._options = options
        self._clock = clock
        self._events = events
        self._go_unready = go_unready
        self._stop_listening = stop_listening
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        self._hurry.set()

    async def run(self) -> None:
        """Returns when every session has ended and its transport has sent the rest, or at the deadline."""
        registry = self._registry
        deadline_s = self._clock.now_s() + self._options.shutdown_timeout
        self._go_unready()
        self._report("unready")
        await self._wait(min(float(self._options.drain_delay), float(self._options.shutdown_timeout)))
        self._stop_listening()
        self._report("stopped_listening")
        await self._close_sessions(deadline_s)
        self._report("closed")
        while registry.closing and self._clock.now_s() < deadline_s and not self._hurry.is_set():
            for session in list(registry.open):  # accepted before listening stopped, and opened only now
                session.end(SHUTDOWN)
            await self._wait(ROUND_S / 2)
        self._report("finished")

    async def _close_sessions(self, deadline_s: float) -> None:
        """Ends equal batches of sessions over the window. Some sessions end by themselves meanwhile."""
        for transport in list(self._registry.unassigned):
            transport.refuse(SHUTDOWN)
        sessions = self._registry.open
        end_s = min(self._clock.now_s() + self._options.drain_window, deadline_s)
        while sessions:
            rounds = max(1, int((end_s - self._clock.now_s()) / ROUND_S)) if not self._hurry.is_set() else 1
            batch = -(-len(sessions) // rounds)
            for session in list(sessions)[:batch]:
                session.end(SHUTDOWN)
            self._report("closing")
            if sessions:
                await self._wait(ROUND_S)

    async def _wait(self, seconds: float) -> None:
        if seconds <= 0 or self._hurry.is_set():
            return
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass  # the usual case: `hurry` was not called

    def _report(self, phase: str) -> None:
        self._events.emit(DrainAdvanced(phase, len(self._registry.open)))
