"""The workers as child processes: started together, told the same, heard in turn, always ended."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from beaconfire.base.errors import BeaconfireError
from beaconfire.loadtest.orders import LINE_BYTES_MAX, Begin, Note, Order, line, read_note
from beaconfire.loadtest.plan import Plan

SILENCE_S: Final = 60.0
"""How long all workers may be silent. They speak ten times a second, unless the machine is hopelessly overloaded."""

_END_TIMEOUT_S: Final = 5.0


class FleetError(BeaconfireError):
    """The load side itself has failed."""


class Fleet:
    """All workers. Made by `start_fleet`."""

    def __init__(self, processes: list[Process]) -> None:
        self._processes = processes
        self._notes: asyncio.Queue[tuple[int, Note | None]] = asyncio.Queue()

    @property
    def size(self) -> int:
        return len(self._processes)

    def tell(self, order: Order) -> None:
        text = line(order)
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(text)

    async def hear(self) -> tuple[int, Note]:
        """The next note and which worker it is from. Raises FleetError if one has ended, or all are silent."""
        try:
            async with asyncio.timeout(SILENCE_S):
                worker, note = await self._notes.get()
        except TimeoutError:
            raise FleetError(
                f"the load processes have been silent for {SILENCE_S:g} s: is the machine overloaded?"
            ) from None
        if note is None:
            code = await self._processes[worker].wait()
            raise FleetError(f"load process {worker} has ended with exit code {code}; was it out of memory?")
        return worker, note

    async def listen(self, worker: int) -> None:
        stream = self._processes[worker].stdout
        assert stream is not None
        while text := await stream.readline():
            self._notes.put_nowait((worker, read_note(text)))
        self._notes.put_nowait((worker, None))


@asynccontextmanager
async def start_fleet(plan: Plan) -> AsyncIterator[Fleet]:
    """The processes get the plan, secrets included, through a pipe: nothing of it is seen in the list of processes.

    They are in sessions of their own, so that Ctrl-C reaches the campaign only, which asks them for what they have.
    """
    command = [sys.executable, "-P", "-m", "beaconfire.loadtest"]
    processes: list[Process] = []
    listeners: list[asyncio.Task[None]] = []
    try:
        for _ in range(plan.workers):
            processes.append(  # noqa: PERF401 - those already started must be ended if one cannot be
                await asyncio.create_subprocess_exec(
                    *command, stdin=PIPE, stdout=PIPE, limit=LINE_BYTES_MAX, start_new_session=True
                )
            )
        fleet = Fleet(processes)
        for worker, process in enumerate(processes):
            assert process.stdin is not None
            process.stdin.write(line(Begin(plan, worker)))
            listeners.append(asyncio.create_task(fleet.listen(worker)))
        yield fleet
    finally:
        await asyncio.gather(*map(_end, processes))
        for listener in listeners:
            listener.cancel()


async def _end(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_END_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
