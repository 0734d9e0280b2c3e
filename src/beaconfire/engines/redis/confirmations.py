"""Waits until publications have reached replicas, or the disk of the master.

Theory of operation. The server has one sequence of writes. On a connection of its own, this module makes one small
write after the publications, and asks the server (WAIT, WAITAOF) when this write has arrived. Then all writes before it
have arrived as well. So all publications that are stored while one question is on its way share the next question, and
other commands never wait behind a question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from beaconfire.base.errors import CommandError, EngineUnavailable, NotReplicated
from beaconfire.base.tasks import start_task
from beaconfire.engines.port import Durability
from beaconfire.engines.redis.connection import Command, Connection, Reply, ServerError

ANSWER_MARGIN_S: Final = 0.5
"""How much later than its own time-out the answer of the server may come."""


class Confirmations:
    """The questions to one master, about one durability."""

    def __init__(
        self,
        durability: Durability,
        replicas: int,
        timeout_s: float,
        mark: bytes,
        open_connection: Callable[[], Awaitable[Connection]],
        lineage: Callable[[], bytes],
    ) -> None:
        """`mark` is the key that is written. `open_connection` connects to the master; it raises EngineUnavailable.
        `lineage` is that of the master, which changes with the server."""
        self._durability = durability
        self._replicas = replicas
        self._timeout_s = timeout_s
        self._mark = mark
        self._open_connection = open_connection
        self._lineage = lineage
        self._connection: Connection | None = None
        timeout_ms = int(timeout_s * 1000)
        self._question: Command = (
            ("WAIT", replicas, timeout_ms) if durability == "replicated" else ("WAITAOF", 1, 0, timeout_ms)
        )
        self._waiting: list[asyncio.Future[None]] = []
        """Of the next question."""
        self._running: asyncio.Task[None] | None = None

    async def confirm(self, lineage: bytes) -> None:
        """Returns when all publications that the master of this lineage has answered are confirmed.

        Raises NotReplicated if that is not so within the time-out, or if the connection or the master is lost: the
        publications are stored, and how far they got is not known.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if self._running is None:
            self._running = start_task(self._run())
        await future
        if lineage != self._lineage():
            raise NotReplicated("another server has taken the place of the master: the publication may be lost")

    def close(self) -> None:
        """The link is lost. Questions fail."""
        if self._connection is not None:
            self._connection.close("the link is lost")
            self._connection = None

    async def _run(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            error: Exception | None = None
            try:
                await self._ask()
            except CommandError as problem:
                error = problem
            except Exception as problem:  # noqa: BLE001 - those that wait get it
                error = NotReplicated(f"the publication is stored; whether it got further is not known: {problem!r}")
            for future in waiting:
                if future.done():
                    continue
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
        self._running = None

    async def _ask(self) -> None:
        async with asyncio.timeout(self._timeout_s + ANSWER_MARGIN_S):
            connection = self._connection
            if connection is None or connection.is_closed:
                connection = self._connection = await self._open_connection()
            try:
                connection.call("SET", self._mark, b"", "PX", 60_000)
                answer = await connection.call(*self._question)
            except ServerError as error:
                raise NotReplicated(f"the publication is stored; the server says: {error}") from error
            except EngineUnavailable as error:
                raise NotReplicated(f"the connection was lost: {error.detail}") from error
        self._check(answer)

    def _check(self, answer: Reply) -> None:
        if self._durability == "disk":
            if answer[0] < 1:
                raise NotReplicated(f"the master has not flushed to disk within {self._timeout_s:g} s")
        elif answer < self._replicas:
            raise NotReplicated(f"{answer} of {self._replicas} replicas have confirmed within {self._timeout_s:g} s")
