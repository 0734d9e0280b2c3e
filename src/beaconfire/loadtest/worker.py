"""A worker: a process that holds its share of the connections and does what the campaign orders."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

from beaconfire.base.clock import SystemClock
from beaconfire.loadtest.client import Client
from beaconfire.loadtest.dialect import dialect
from beaconfire.loadtest.ledger import Ledger
from beaconfire.loadtest.opening import Opener
from beaconfire.loadtest.orders import (
    LINE_BYTES_MAX,
    Begin,
    Close,
    Closed,
    Finish,
    Finished,
    Go,
    Halt,
    Note,
    Open,
    Opened,
    Opening,
    Order,
    Running,
    line,
    read_order,
)
from beaconfire.loadtest.publishing import Publisher

NOTE_INTERVAL_S: Final = 0.1


class Worker:
    """Obeys one order after the other; opening and publishing go on in the background, so that `Halt` gets through."""

    def __init__(self, begin: Begin, say: Callable[[Note], None], now_ns: Callable[[], int]) -> None:
        self._plan = begin.plan
        self._number = begin.worker
        self._say = say
        self._clients: dict[int, Client] = {}
        spoken = dialect(begin.plan.protobuf)
        self._ledger = Ledger(spoken, begin.plan.channels, now_ns)
        self._opener = Opener(begin.plan, spoken, self._ledger, SystemClock())
        self._publisher: Publisher | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def obey(self, order: Order) -> None:
        match order:
            case Open():
                self._start(self._open())
                await asyncio.sleep(0)  # it has begun before an order to halt can cancel it, and so it will answer
            case Go():
                self._go(order)
            case Halt():
                if self._publisher is None:
                    self._cancel()
                else:
                    self._publisher.halt()
            case Finish():
                self._finish()
            case Close():
                self.close()
                self._say(Closed())

    def close(self) -> None:
        self._cancel()
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # a bug of ours: the loop's exception handler ends the process

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    # --- opening ---

    async def _open(self) -> None:
        self._clients = {number: client for number, client in self._clients.items() if client.is_in}
        ticker = self._start(self._tell_opening())
        opener = self._opener
        try:
            await opener.fill(self._clients, self._plan.connections_of(self._number))
        finally:  # told to halt, too: what is open counts
            members = Counter(
                channel
                for number, client in self._clients.items()
                if client.is_in
                for channel in self._plan.channels_of(number)
            )
            counts = tuple(members[channel] for channel in range(self._plan.channels))
            ticker.cancel()
            self._say(Opened(counts, opener.connect.counts(), self._ledger.take_troubles()))

    async def _tell_opening(self) -> None:
        while True:
            await asyncio.sleep(NOTE_INTERVAL_S)
            self._say(Opening(self._opener.opened, self._opener.failed))

    # --- running ---

    def _go(self, go: Go) -> None:
        self._ledger.begin(go.start_ns)
        for client in self._clients.values():
            client.expect(self._plan.publishers)
        self._publisher = Publisher(self._plan, self._number, go, self._clients, self._ledger)
        self._start(self._publisher.run())
        self._start(self._tell_running(self._publisher))

    async def _tell_running(self, publisher: Publisher) -> None:
        while True:
            await asyncio.sleep(NOTE_INTERVAL_S)
            alive = sum(client.is_in for client in self._clients.values())
            arrived = self._ledger.arrived
            self._say(Running(publisher.sent, publisher.expected, arrived, alive, publisher.done))

    def _finish(self) -> None:
        publisher, ledger = self._publisher, self._ledger
        assert publisher is not None, "Finish without Go"
        publisher.halt()
        self._cancel()
        self._publisher = None
        self._say(
            Finished(
                sent=publisher.sent,
                expected=publisher.expected,
                arrived=ledger.arrived,
                duplicated=ledger.duplicated,
                reordered=ledger.reordered,
                latency_ns=ledger.latency.counts(),
                late_ns=publisher.late.counts(),
                last_ns=ledger.last_ns,
                cpu=publisher.cpu,
                troubles=ledger.take_troubles(),
            )
        )


async def work(now_ns: Callable[[], int]) -> None:
    """Reads orders from standard input to its end, and writes notes to standard output."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_die)
    gc.disable()  # connections make no circles, and a collection among thousands of them would only stall
    orders = asyncio.StreamReader(LINE_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)

    def say(note: Note) -> None:
        sys.stdout.buffer.write(line(note))
        sys.stdout.buffer.flush()

    begin = read_order(await orders.readline())
    assert isinstance(begin, Begin)
    worker = Worker(begin, say, now_ns)
    while text := await orders.readline():
        await worker.obey(read_order(text))
    worker.close()


def _die(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A worker that goes on with a part of it broken would measure something else."""
    loop.default_exception_handler(context)
    os._exit(1)
