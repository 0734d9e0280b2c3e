"""The connection of a child process to the supervisor, as the child sees it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

from beaconfire.server.workers.child import READY
from beaconfire.server.workers.seat import Seat


class Channel:
    """Receives the commands of the supervisor. Each command is carried out before the next one.

    A command is a line: a word, and the number of a slot if the command has one.
    """

    def __init__(
        self, seat: Seat, commands: Mapping[str, Callable[[int], Awaitable[None]]], on_end: Callable[[], None]
    ) -> None:
        """`commands` gets the number, -1 without one. `on_end` is called if the supervisor has ended."""
        self._seat = seat
        self._commands = commands
        self._on_end = on_end
        self._writer: asyncio.StreamWriter | None = None
        self._running: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """From now on commands are carried out."""
        reader, self._writer = await asyncio.open_connection(sock=self._seat.open_channel())
        self._running = asyncio.get_running_loop().create_task(self._run(reader))

    def report_ready(self) -> None:
        """Tells the supervisor that this process serves."""
        assert self._writer is not None, "opened"
        self._writer.write(READY)

    async def _run(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                word, _, number = line.decode().strip().partition(" ")
                await self._commands[word](int(number) if number else -1)
        self._on_end()
