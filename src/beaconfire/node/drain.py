"""A graceful shutdown that hands the clients over at a rate, so that those of a rolling deploy do not reconnect all at
once.

The steps: readiness turns red; the load balancer gets time to notice; the node stops listening; sessions are closed in
batches, at most `server.drain_rate` per second, with a code that tells clients to reconnect; the rest finishes or is
cut off. A hard deadline, `server.shutdown_timeout`, covers all steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from beaconfire.base.clock import Clock
from beaconfire.base.errors import SHUTDOWN
from beaconfire.model.events import DrainAdvanced, EventSink
from beaconfire.session.registry import SessionRegistry
from beaconfire.session.session import Session
from beaconfire.transports.options import ServerOptions

ROUND_S: Final = 0.1
"""Seconds between two batches."""

REPLACED_GRACE_S: Final = 1.0
"""How long a replaced worker serves connections that were accepted before it stopped listening, at least. A client
sends its request within a round trip after the connection was accepted."""


class Drain:
    """One shutdown of one node. `hurry` skips every wait that is left.

    A worker that another worker has `replaced` stops listening first, without `server.drain_delay`: its successor
    listens on the same socket already. Until its sessions have ended, and for `REPLACED_GRACE_S` at least, it still
    admits the connections that it has accepted. Their sessions are handed over like the others. `go_unready`, which
    refuses all further connections, is called after that.
    """

    def __init__(
        self,
        registry: SessionRegistry[Session],
        options: ServerOptions,
        clock: Clock,
        events: EventSink,
        go_unready: Callable[[], None],
        stop_listening: Callable[[], None],
        *,
        replaced: bool = False,
    ) -> None:
        self._registry = registry
        self._options = options
        self._clock = clock
        self._events = events
        self._go_unready = go_unready
        self._stop_listening = stop_listening
        self._replaced = replaced
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        self._hurry.set()

    async def run(self) -> None:
        """Returns when every session has ended and its transport has sent the rest, or at the deadline."""
        started_s = self._clock.now_s()
        deadline_s = started_s + self._options.shutdown_timeout
        if self._replaced:
            await self._hand_over(started_s, deadline_s)
        else:
            await self._leave(deadline_s)
        self._report("closed")
        await self._finish(deadline_s)
        self._report("finished")

    async def _leave(self, deadline_s: float) -> None:
        """The steps up to the end of all sessions, if no other process has taken over."""
        self._go_unready()
        self._report("unready")
        await self._wait(min(float(self._options.drain_delay), float(self._options.shutdown_timeout)))
        self._stop_listening()
        self._report("stopped_listening")
        self._refuse_unassigned()
        await self._close_sessions(deadline_s)

    async def _hand_over(self, started_s: float, deadline_s: float) -> None:
        """The steps up to the end of all sessions, if another worker has taken over."""
        self._stop_listening()
        self._report("stopped_listening")
        grace_end_s = min(started_s + REPLACED_GRACE_S, deadline_s)
        await self._close_sessions(deadline_s)
        while self._clock.now_s() < grace_end_s and not self._hurry.is_set():
            await self._wait(min(ROUND_S, grace_end_s - self._clock.now_s()))
            await self._close_sessions(deadline_s)
        self._go_unready()
        self._report("unready")
        self._refuse_unassigned()

    async def _finish(self, deadline_s: float) -> None:
        """Waits until every transport has sent the rest."""
        registry = self._registry
        while registry.closing and self._clock.now_s() < deadline_s and not self._hurry.is_set():
            for session in list(registry.open):  # accepted before listening stopped, and opened only now
                session.end(SHUTDOWN)
            await self._wait(ROUND_S / 2)

    def _refuse_unassigned(self) -> None:
        for transport in list(self._registry.unassigned):
            transport.refuse(SHUTDOWN)

    async def _close_sessions(self, deadline_s: float) -> None:
        """Ends sessions in batches at `server.drain_rate`, or faster where the deadline requires it.

        Then the batches are equal. Some sessions end by themselves meanwhile, and some begin.
        """
        rate, sessions = self._options.drain_rate, self._registry.open
        due = max(rate * ROUND_S, 1.0)
        while sessions:
            rounds = max(1, int((deadline_s - self._clock.now_s()) / ROUND_S))
            batch = int(due)
            if rate == 0 or self._hurry.is_set():
                batch = len(sessions)
            elif len(sessions) > rate * ROUND_S * rounds:
                batch = max(batch, -(-len(sessions) // rounds))
            for session in list(sessions)[:batch]:
                session.end(SHUTDOWN)
            due = max(due - batch, 0.0) + rate * ROUND_S
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
