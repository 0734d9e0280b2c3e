"""A worker: a process that holds a share of the connections and executes the commands of the load test."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

from beaconfire.base.clock import SystemClock
from beaconfire.loadtest.client import LoadClient
from beaconfire.loadtest.connection_opener import ConnectionOpener
from beaconfire.loadtest.messages import JSON, PROTOBUF
from beaconfire.loadtest.publisher import RunPublisher
from beaconfire.loadtest.results import Results
from beaconfire.loadtest.worker_messages import (
    LINE_BYTES_MAX,
    CloseConnections,
    Configure,
    ConnectionsClosed,
    ConnectionsOpened,
    FinishRun,
    OpenConnections,
    OpenProgress,
    RunFinished,
    RunProgress,
    StartRun,
    Stop,
    WorkerCommand,
    WorkerUpdate,
    decode_command,
    encode_line,
)

UPDATE_INTERVAL_S: Final = 0.1


class Worker:
    """Executes one command after the other. Connections are opened and messages published in background tasks, so
    that `Stop` takes effect at once."""

    def __init__(self, config: Configure, send: Callable[[WorkerUpdate], None], now_ns: Callable[[], int]) -> None:
        self._plan = config.plan
        self._number = config.worker
        self._send = send
        self._clients: dict[int, LoadClient] = {}
        encoding = PROTOBUF if config.plan.protobuf else JSON
        self._results = Results(encoding, config.plan.channels, now_ns)
        self._opener = ConnectionOpener(config.plan, encoding, self._results, SystemClock())
        self._publisher: RunPublisher | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def execute(self, command: WorkerCommand) -> None:
        match command:
            case OpenConnections():
                self._start_task(self._open())
                await asyncio.sleep(0)  # the task starts before `Stop` can cancel it, so it always sends its update
            case StartRun():
                self._start_run(command)
            case Stop():
                if self._publisher is None:
                    self._cancel_tasks()
                else:
                    self._publisher.stop()
            case FinishRun():
                self._finish_run()
            case CloseConnections():
                self.close()
                self._send(ConnectionsClosed())

    def close(self) -> None:
        self._cancel_tasks()
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # a bug: the exception handler of the event loop ends the process

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    # --- opening connections ---

    async def _open(self) -> None:
        self._clients = {number: client for number, client in self._clients.items() if client.ready}
        progress = self._start_task(self._send_open_progress())
        opener = self._opener
        try:
            await opener.open_missing(self._clients, self._plan.connections_of(self._number))
        finally:  # after `Stop`, too: the update then names the connections that are open
            subscribers = Counter(
                channel
                for number, client in self._clients.items()
                if client.ready
                for channel in self._plan.channels_of(number)
            )
            counts = tuple(subscribers[channel] for channel in range(self._plan.channels))
            progress.cancel()
            self._send(ConnectionsOpened(counts, opener.connect_time.counts(), self._results.take_failures()))

    async def _send_open_progress(self) -> None:
        while True:
            await asyncio.sleep(UPDATE_INTERVAL_S)
            self._send(OpenProgress(self._opener.opened, self._opener.failed))

    # --- a run ---

    def _start_run(self, run: StartRun) -> None:
        self._results.start_run(run.start_ns)
        for client in self._clients.values():
            client.start_run(self._plan.publishers)
        self._publisher = RunPublisher(self._plan, self._number, run, self._clients, self._results)
        self._start_task(self._publisher.run())
        self._start_task(self._send_run_progress(self._publisher))

    async def _send_run_progress(self, publisher: RunPublisher) -> None:
        while True:
            await asyncio.sleep(UPDATE_INTERVAL_S)
            open_connections = sum(client.ready for client in self._clients.values())
            delivered = self._results.delivered
            self._send(RunProgress(publisher.sent, publisher.expected, delivered, open_connections, publisher.done))

    def _finish_run(self) -> None:
        publisher, results = self._publisher, self._results
        assert publisher is not None, "FinishRun without StartRun"
        publisher.stop()
        self._cancel_tasks()
        self._publisher = None
        self._send(
            RunFinished(
                sent=publisher.sent,
                expected=publisher.expected,
                delivered=results.delivered,
                duplicated=results.duplicated,
                reordered=results.reordered,
                latency_ns=results.latency.counts(),
                late_ns=publisher.late.counts(),
                last_ns=results.last_ns,
                cpu=publisher.cpu,
                failures=results.take_failures(),
            )
        )


async def run_worker(now_ns: Callable[[], int]) -> None:
    """Reads commands from standard input until it ends, and writes updates to standard output."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_end_process)
    gc.disable()  # connections form no reference cycles, and a collection with thousands of them stalls the event loop
    commands = asyncio.StreamReader(LINE_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)

    def send(update: WorkerUpdate) -> None:
        sys.stdout.buffer.write(encode_line(update))
        sys.stdout.buffer.flush()

    config = decode_command(await commands.readline())
    assert isinstance(config, Configure)
    worker = Worker(config, send, now_ns)
    while line := await commands.readline():
        await worker.execute(decode_command(line))
    worker.close()


def _end_process(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """After an unexpected error the measured values are wrong, so the worker ends."""
    loop.default_exception_handler(context)
    os._exit(1)
