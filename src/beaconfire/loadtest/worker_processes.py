"""The workers as child processes: starts them, sends commands to all, receives their updates, and ends them."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from beaconfire.base.errors import BeaconfireError
from beaconfire.loadtest.plan import Plan
from beaconfire.loadtest.worker_messages import (
    LINE_BYTES_MAX,
    Configure,
    WorkerCommand,
    WorkerUpdate,
    decode_update,
    encode_line,
)

UPDATE_TIMEOUT_S: Final = 60.0
"""How long to wait for an update of any worker. Workers send one ten times a second, so only an overloaded machine
reaches this limit."""

_END_TIMEOUT_S: Final = 5.0


class WorkerError(BeaconfireError):
    """A worker process ended, or none responds."""


class WorkerProcesses:
    """All workers. Use `start_workers` to make it."""

    def __init__(self, processes: list[Process]) -> None:
        self._processes = processes
        self._updates: asyncio.Queue[tuple[int, WorkerUpdate | None]] = asyncio.Queue()

    @property
    def count(self) -> int:
        return len(self._processes)

    def send(self, command: WorkerCommand) -> None:
        """To all workers."""
        line = encode_line(command)
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(line)

    async def receive(self) -> tuple[int, WorkerUpdate]:
        """The next update and the number of its worker. Raises WorkerError if a worker has ended or none responds."""
        try:
            async with asyncio.timeout(UPDATE_TIMEOUT_S):
                worker, update = await self._updates.get()
        except TimeoutError:
            raise WorkerError(
                f"the load processes have not responded for {UPDATE_TIMEOUT_S:g} s: the machine may be overloaded"
            ) from None
        if update is None:
            code = await self._processes[worker].wait()
            raise WorkerError(
                f"load process {worker} ended with exit code {code}: the machine may have run out of memory"
            )
        return worker, update

    async def read_updates(self, worker: int) -> None:
        """Queues the updates of one worker until its output ends."""
        stream = self._processes[worker].stdout
        assert stream is not None
        while line := await stream.readline():
            self._updates.put_nowait((worker, decode_update(line)))
        self._updates.put_nowait((worker, None))


@asynccontextmanager
async def start_workers(plan: Plan) -> AsyncIterator[WorkerProcesses]:
    """Ends the processes on exit.

    The processes receive the plan, which contains secrets, through a pipe: the list of processes shows command lines.
    They run in sessions of their own, so that Ctrl-C interrupts only the load test, which then asks them for results.
    """
    command = [sys.executable, "-P", "-m", "beaconfire.loadtest"]
    processes: list[Process] = []
    readers: list[asyncio.Task[None]] = []
    try:
        for _ in range(plan.workers):
            processes.append(  # noqa: PERF401 - if one cannot be started, those already started must be ended
                await asyncio.create_subprocess_exec(
                    *command, stdin=PIPE, stdout=PIPE, limit=LINE_BYTES_MAX, start_new_session=True
                )
            )
        workers = WorkerProcesses(processes)
        for worker, process in enumerate(processes):
            assert process.stdin is not None
            process.stdin.write(encode_line(Configure(plan, worker)))
            readers.append(asyncio.create_task(workers.read_updates(worker)))
        yield workers
    finally:
        await asyncio.gather(*map(_end, processes))
        for reader in readers:
            reader.cancel()


async def _end(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_END_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
