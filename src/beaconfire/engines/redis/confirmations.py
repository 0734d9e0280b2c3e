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

from beaconfire.base.errors import NOT_AVAILABLE, CommandError, EngineUnavailable, NotReplicated
from beaconfire.base.tasks import start_task
from beaconfire.engines.port import Durability
from beaconfire.engines.redis.connection import Command, Connection, Reply, ServerError
from beaconfire.engines.redis.handshake import Server

WAITAOF_VERSION: Final = (7, 2)

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
        open_connection: Callable[[], Awaitable[tuple[Connection, Server]]],
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
        self._question: Command | None = None
        """None: what the server answers is on disk."""
        self._waiting: list[asyncio.Future[None]] = []
        """Of the next question."""
        self._running: asyncio.Task[None] | None = None

    async def confirm(self, lineage: bytes) -> None:
        """Returns when all publications that the master of this lineage has answered are confirmed.

        Raises NotReplicated if that is not so within the time-out, or if the connection or the master is lost: the
        publications are stored, and how far they got is not known. Raises CommandError 108 if the server offers no
        such durability.
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
                self._question = None
                connection, server = await self._open_connection()
                self._connection = connection
                self._question = await self._find_question(connection, server)
            if self._question is None:
                return
            try:
                connection.call("SET", self._mark, b"", "PX", 60_000)
                answer = await connection.call(*self._question)
            except ServerError as error:
                raise CommandError(
                    NOT_AVAILABLE, f"durability {self._durability!r}: the server says: {error}"
                ) from error
            except EngineUnavailable as error:
                raise NotReplicated(f"the connection was lost: {error.detail}") from error
        self._check(answer)

    def _check(self, answer: Reply) -> None:
        if self._durability == "disk":
            if answer[0] < 1:
                raise NotReplicated(f"the master has not flushed to disk within {self._timeout_s:g} s")
        elif answer < self._replicas:
            raise NotReplicated(f"{answer} of {self._replicas} replicas have confirmed within {self._timeout_s:g} s")

    async def _find_question(self, connection: Connection, server: Server) -> Command | None:
        timeout_ms = int(self._timeout_s * 1000)
        if self._durability == "replicated":
            return ("WAIT", self._replicas, timeout_ms)
        if server.name == "valkey" or server.version >= WAITAOF_VERSION:
            return ("WAITAOF", 1, 0, timeout_ms)
        try:
            said = await connection.call("CONFIG", "GET", "append*")
        except ServerError as error:
            raise CommandError(
                NOT_AVAILABLE, f"durability 'disk': cannot read the configuration of the server: {error}"
            ) from error
        if said.get(b"appendonly") == b"yes" and said.get(b"appendfsync") == b"always":
            return None
        raise CommandError(
            NOT_AVAILABLE,
            f"durability 'disk': {server} needs `appendonly yes` and `appendfsync always`; from version 7.2 on, "
            "`appendonly yes` suffices",
        )
