"""Announcements that a link makes to itself: they show that announcements arrive, and which lineage the server has."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.timers import Timer, Timers
from beaconfire.engines.redis.connection import Command, Connection, Future, Reply, pack
from beaconfire.engines.redis.pending import Ignored

PROBE_INTERVAL_S: Final = 3.0


class Probes:
    """The probes of one pair of connections."""

    def __init__(
        self,
        connection: Connection,
        name: bytes,
        verb: str,
        read_lineage: Callable[[], Command],
        lineage: bytes,
        timers: Timers,
        lose: Callable[[str], None],
    ) -> None:
        """`name` is announced with the command `verb`. `read_lineage` makes the command that returns the lineage, which
        must stay `lineage`. `lose` ends the link, for a reason."""
        self.name = name
        self._connection = connection
        self._verb = verb
        self._read_lineage = read_lineage
        self._lineage = lineage
        self._timers = timers
        self._lose = lose
        self._sent = 0
        self._arrived = 0
        """The numbers of the last probe, and of the last one that has arrived."""
        self._is_late = False
        """A probe has not arrived within an interval."""
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        """What waits for the arrival of a probe."""
        self._timer: Timer = timers.after(PROBE_INTERVAL_S, self._probe)

    async def round_trip(self) -> None:
        """Returns when a new probe has arrived. Raises EngineUnavailable if the link is lost."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._announce()
        self._waiting.append((self._sent, future))
        await future

    def on_arrival(self, data: bytes) -> None:
        """A probe has arrived."""
        self._arrived = int(data)
        self._is_late = False
        while self._waiting and self._waiting[0][0] <= self._arrived:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    def close(self, error: EngineUnavailable) -> None:
        """The link is lost: whoever waits gets the error."""
        self._timer.cancel()
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # marks it as seen: the caller may be gone
        self._waiting.clear()

    def _probe(self) -> None:
        """A probe that has not arrived two intervals later ends the link."""
        if self._is_late:
            self._lose("the server answers, but its announcements do not arrive")
            return
        self._is_late = self._arrived != self._sent
        self._timer = self._timers.after(PROBE_INTERVAL_S, self._probe)
        answer = Future()
        answer.add_done_callback(self._on_lineage)
        self._connection.send(pack(self._read_lineage()), answer)
        self._announce()

    def _announce(self) -> None:
        self._sent += 1
        self._connection.send(pack((self._verb, self.name, self._sent)), Ignored())

    def _on_lineage(self, answer: asyncio.Future[Reply]) -> None:
        if answer.cancelled() or answer.exception() is not None or self._connection.is_closed:
            return
        if answer.result() != self._lineage:
            self._lose("the server has lost its data, or another server has taken its place")
