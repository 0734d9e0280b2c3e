"""The thread of the writer: takes operations from the event loop, and hands the outcomes back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final

from beaconfire.base.errors import EngineUnavailable
from beaconfire.engines.port import EngineState
from beaconfire.engines.sqlite.operations import Operation
from beaconfire.engines.sqlite.writer import Writer
from beaconfire.model.events import Event, EventSink, LimitHit

BATCH_MAX: Final = 256
"""How many operations share one commit. Their outcomes are handed over in one turn of the event loop: a few
milliseconds with the announcements."""

BATCH_BYTES_MAX: Final = 1024 * 1024
"""A batch with more data than this is not extended."""

WAITING_MAX: Final = 50_000
"""How many operations wait at most for the disk. Above that, operations are refused."""

IDLE_S: Final = 0.25
"""How long the thread waits for an operation before it looks whether there is other work."""


class WriterThread:
    """Operations run in the order of `submit`, and finish in this order, those of a batch in one turn of the loop.

    The methods belong to the event loop.
    """

    def __init__(self, writer: Writer, events: EventSink) -> None:
        """`events` gets the events of the writer, on the event loop."""
        self._writer = writer
        self._events = events
        self._queue: SimpleQueue[Operation[Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Opens the file. Raises StorageUnusable."""
        assert self._thread is None, "the thread has ended"
        loop = asyncio.get_running_loop()
        self._queue = SimpleQueue()
        opened: asyncio.Future[None] = loop.create_future()
        self._ended = loop.create_future()
        self._thread = threading.Thread(
            target=self._run, args=(loop, opened, self._ended), name="sqlite-writer", daemon=True
        )
        self._writer.events = _LoopEvents(loop, self._events)
        self._thread.start()
        await opened

    async def stop(self) -> None:
        """Runs what was submitted before, and closes the file. Idempotent: a second call, also after one that was
        cancelled, returns when the file is closed."""
        if self._ended is None:
            return
        if self._thread is not None:
            self._thread = None
            self._queue.put(None)
        await asyncio.shield(self._ended)

    def submit(self, operation: Operation[Any]) -> None:
        """Raises EngineUnavailable if the thread does not run, or is too far behind; and what the writer refuses."""
        if self._thread is None:
            raise EngineUnavailable("the SQLite engine is not started")
        if operation.stores and (refusal := self._writer.refusal) is not None:
            raise refusal()
        if self._queue.qsize() >= WAITING_MAX:
            self._events.emit(LimitHit("storage_waiting_max", ""))
            raise EngineUnavailable(
                f"more than {WAITING_MAX} operations wait for the disk: publish less, or use a faster disk"
            )
        self._queue.put(operation)

    def state(self) -> EngineState:
        return self._writer.state

    # On the thread

    def _run(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Future[None], ended: asyncio.Future[None]) -> None:
        try:
            self._writer.open()
        except BaseException as error:  # noqa: BLE001 - the caller of `start` gets it
            loop.call_soon_threadsafe(_set_exception, opened, error)
            loop.call_soon_threadsafe(_set_result, ended, None)
            return
        loop.call_soon_threadsafe(_set_result, opened, None)
        try:
            self._serve(loop)
            self._writer.close()
            loop.call_soon_threadsafe(_set_result, ended, None)
        except RuntimeError:
            self._writer.close()  # The event loop was closed without `stop`.

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        more = False
        while (batch := self._take(0 if more else IDLE_S)) is not None:
            if batch:
                self._writer.run(batch)
                loop.call_soon_threadsafe(_finish, batch)
            more = self._writer.maintain(idle=not batch)

    def _take(self, timeout_s: float) -> list[Operation[Any]] | None:
        """The next batch, empty if there is none within the time, None at the end."""
        queue = self._queue
        batch: list[Operation[Any]] = []
        size = 0
        try:
            operation = queue.get(timeout=timeout_s) if timeout_s else queue.get_nowait()
            while operation is not None:
                if not operation.future.cancelled():
                    batch.append(operation)
                    size += operation.size
                if len(batch) >= BATCH_MAX or size >= BATCH_BYTES_MAX:
                    return batch
                operation = queue.get_nowait()
        except Empty:
            return batch
        if batch:
            queue.put(None)  # Again at the end: this batch runs first, and nothing is submitted after `stop`.
            return batch
        return None


class _LoopEvents:
    """Passes events to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, events: EventSink) -> None:
        self._loop = loop
        self._events = events

    def emit(self, event: Event) -> None:
        self._loop.call_soon_threadsafe(self._events.emit, event)


def _finish(batch: Sequence[Operation[Any]]) -> None:
    """In this order, a client gets the reply to its publish before its own publication."""
    for operation in batch:
        operation.answer()
    for operation in batch:
        operation.announce()


def _set_result(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
