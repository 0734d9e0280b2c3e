"""One child process as the supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from typing import Final

from msgspec import structs

from beaconfire.server.workers.seat import Seat, State

READY: Final = b"ready\n"
"""What a process writes to the supervisor when it serves."""


class Child:
    """A process that the supervisor has started. Make it with `start_child`.

    `state` is set by the supervisor, too.
    """

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        started_s: float,
    ) -> None:
        self.name = name
        self.state: State = "starting"
        self.started_s = started_s
        self._process = process
        self._reader = reader
        self._writer = writer
        self._ended = asyncio.get_running_loop().create_task(process.wait())

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait_ready(self, timeout_s: float) -> bool:
        """Returns True when the process serves, False if it has ended or the time is over."""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(timeout_s):
                return await self._reader.readline() == READY
        return False

    async def wait(self) -> str:
        """Returns when the process has ended: how, as text for operators."""
        code = await asyncio.shield(self._ended)
        self._writer.close()
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    @property
    def exit_code(self) -> int | None:
        """None while the process runs, negative if a signal has ended it."""
        return self._process.returncode

    def tell(self, command: str) -> None:
        """Sends a command, which `Channel` of the process carries out. Does nothing if the process has ended."""
        if not self._writer.is_closing():
            self._writer.write(command.encode() + b"\n")

    def send_signal(self, number: int) -> None:
        """Does nothing if the process has ended."""
        if not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)  # `send_signal` of asyncio would take the exit code away from `wait`

    async def end(self, timeout_s: float) -> None:
        """Returns when the process has ended. Kills the process if it still runs after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.wait()
                return
        self.send_signal(signal.SIGKILL)
        await self.wait()


async def start_child(command: Sequence[str], seat: Seat, now_s: float) -> Child:
    """Starts `command` with the seat as its last argument. `seat.channel` is filled in here.

    The process gets a session of its own, so that Ctrl-C at the terminal reaches the supervisor only. It inherits
    standard output and standard error, and of all other descriptors those in the seat. If the supervisor ends in any
    way, the process sees the end of the channel.
    """
    ours, theirs = socket.socketpair()
    try:
        seat = structs.replace(seat, channel=theirs.fileno())
        process = await asyncio.create_subprocess_exec(
            *command,
            seat.encode(),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), *(number for numbers in seat.listening for number in numbers)],
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    reader, writer = await asyncio.open_connection(sock=ours)
    return Child(seat.name, process, reader, writer, now_s)
