"""Leaving politely: the reverse of start-up, spread over a window, so that a rolling deploy is no stampede.

Readiness goes red; the load balancer gets time to notice; listening stops; sessions are closed in batches over a
window, each told to come back elsewhere; what is left finishes or is cut. All of it happens before one hard deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from beaconfire.base.clock import Clock
from beaconfire.base.errors import SHUTDOWN
from beaconfire.model.events import DrainAdvanced
from beaconfire.node.node import Node
from beaconfire.transports.options import ServerOptions

ROUND_S = 0.1
"""Time between two batches."""


class Drain:
    """One shutdown of one node. `hurry` makes it skip every wait that is left."""

    def __init__(
        self,
        node: Node,
        options: ServerOptions,
        clock: Clock,
        go_unready: Callable[[], None],
        stop_listening: Callable[[], None],
    ) -> None:
        self._node = node
        self._options = options
        self._clock = clock
        self._go_unready = go_unready
        self._stop_listening = stop_listening
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        self._hurry.set()

    async def run(self) -> None:
        """Returns when every session has been told and has gone, or the deadline has come."""
        deadline_s = self._clock.now_s() + self._options.shutdown_timeout
        self._go_unready()
        self._report("unready")
        await self._wait(min(float(self._options.drain_delay), float(self._options.shutdown_timeout)))
        self._stop_listening()
        self._report("stopped_listening")
        await self._close_sessions(deadline_s)
        self._report("closed")
        while self._node.leaving and self._clock.now_s() < deadline_s and not self._hurry.is_set():
            for session in list(self._node.connections):  # admitted before listening ended, and only now here
                session.end(SHUTDOWN)
            await self._wait(ROUND_S / 2)
        self._report("finished")

    async def _close_sessions(self, deadline_s: float) -> None:
        """Equal batches over the window. Nobody new comes meanwhile, but some leave by themselves."""
        node = self._node
        end_s = min(self._clock.now_s() + self._options.drain_window, deadline_s)
        while node.connections:
            rounds = max(1, int((end_s - self._clock.now_s()) / ROUND_S)) if not self._hurry.is_set() else 1
            batch = -(-len(node.connections) // rounds)
            for session in list(node.connections)[:batch]:
                session.end(SHUTDOWN)
            self._report("closing")
            if node.connections:
                await self._wait(ROUND_S)

    async def _wait(self, seconds: float) -> None:
        if seconds <= 0 or self._hurry.is_set():
            return
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass  # the usual case: nobody hurried us

    def _report(self, phase: str) -> None:
        self._node.events.emit(DrainAdvanced(phase, len(self._node.connections)))
