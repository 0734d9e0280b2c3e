"""The commands of one session that run or wait. A session without such commands has no queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from beaconfire.base.loop import SLICE_S
from beaconfire.base.tasks import run_in_one_step, start_task
from beaconfire.model.events import LimitHit, report_error
from beaconfire.protocols.port import CommandOrder, ProtocolConnection
from beaconfire.session.context import SessionContext

if TYPE_CHECKING:
    from beaconfire.transports.port import Transport


class QueuedSession(Protocol):
    """The part of a session that its queue uses."""

    @property
    def client(self) -> str: ...

    @property
    def context(self) -> SessionContext[Any]: ...

    @property
    def protocol(self) -> ProtocolConnection: ...

    @property
    def transport(self) -> Transport: ...

    def drop_queue(self) -> None:
        """The queue is empty and idle."""


class CommandQueue:
    """Starts commands in order, each when those that it must wait for have finished (see `CommandOrder`).

    At most `client.concurrent_calls_max` commands run beside others, and at most `client.command_queue_max` overlap.
    Reading from the client pauses while `client.command_queue_max` commands wait.
    """

    __slots__ = (
        "_beside",
        "_is_full",
        "_is_scheduled",
        "_overlapping",
        "_running",
        "_session",
        "_waiting",
        "is_reading_paused",
    )

    def __init__(self, session: QueuedSession) -> None:
        self._session: QueuedSession | None = session
        self._waiting: deque[object] = deque()
        self._running: asyncio.Task[None] | None = None
        self._beside: set[asyncio.Task[None]] = set()
        self._overlapping: set[asyncio.Task[None]] = set()
        self._is_full = False
        self._is_scheduled = False
        self.is_reading_paused = False

    def add(self, commands: Sequence[object]) -> None:
        """Runs the commands after those that wait already."""
        session = self._session
        assert session is not None, "the session is open"
        self._waiting.extend(commands)
        if self._running is None and not self._is_scheduled:
            self._run()
        options = session.context.options
        if self._session is not None and not self.is_reading_paused and len(self._waiting) >= options.command_queue_max:
            self.is_reading_paused = True
            session.context.events.emit(LimitHit("client.command_queue_max", session.client))
            session.transport.pause_reading()

    def close(self) -> None:
        """The session has ended: drops the commands that wait. Commands that run come to their end in the background,
        so the stop of the node waits for them."""
        session, self._session = self._session, None
        self._waiting.clear()
        assert session is not None, "the queue was not empty"
        for task in (*self._overlapping, *self._beside):
            session.context.background.keep(task)
        if self._running is not None:
            session.context.background.keep(self._running)

    def _run(self) -> None:
        """Runs commands for one slice. The rest waits for the next turn of the event loop.

        A frame may hold a thousand commands, and other clients must not wait for all of them.
        """
        session = self._session
        if session is None:
            return
        context = session.context
        until_s = context.clock.now_s() + SLICE_S
        while self._waiting and self._running is None:
            if context.clock.now_s() > until_s:
                self._is_scheduled = True
                context.schedule(self._continue)
                return
            order = session.protocol.order(self._waiting[0])
            if not self._has_place(session, order):
                return
            self._start(session, self._waiting.popleft(), order)
        if not self._waiting and self._session is not None:
            self._resume_reading(session)
            if self._running is None and not self._beside and not self._overlapping:
                self._session = None
                session.drop_queue()

    def _resume_reading(self, session: QueuedSession) -> None:
        if self.is_reading_paused:
            self.is_reading_paused = False
            session.transport.resume_reading()

    def _start(self, session: QueuedSession, command: object, order: CommandOrder) -> None:
        protocol = session.protocol
        if protocol.never_suspends(command):
            run_in_one_step(protocol.execute(command))
            return
        task = start_task(protocol.execute(command))
        if task.done():
            self._report(task)
            return
        match order:
            case CommandOrder.ALONE:
                self._running = task
                task.add_done_callback(self._on_done)
            case CommandOrder.OVERLAPPING:
                self._overlapping.add(task)
                task.add_done_callback(self._on_overlapping_done)
            case CommandOrder.BESIDE:
                self._beside.add(task)
                task.add_done_callback(self._on_beside_done)
        if self._session is None:  # pragma: no cover - only from Python 3.12 on: the command has ended its session
            session.context.background.keep(task)

    def _has_place(self, session: QueuedSession, order: CommandOrder) -> bool:
        """Whether the next command may start now. No command of order `ALONE` runs."""
        context = session.context
        if self._overlapping:
            return order is CommandOrder.OVERLAPPING and len(self._overlapping) < context.options.command_queue_max
        if len(self._beside) < context.options.concurrent_calls_max or order is not CommandOrder.BESIDE:
            self._is_full = False
            return True
        if not self._is_full:
            self._is_full = True
            context.events.emit(LimitHit("client.concurrent_calls_max", session.client))
        return False

    def _continue(self) -> None:
        self._is_scheduled = False
        if self._running is None:
            self._run()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._running = None
        self._report(task)
        if not self._is_scheduled:
            self._run()

    def _on_overlapping_done(self, task: asyncio.Task[None]) -> None:
        self._overlapping.discard(task)
        self._report(task)
        if not self._is_scheduled:
            self._run()

    def _on_beside_done(self, task: asyncio.Task[None]) -> None:
        self._beside.discard(task)
        self._report(task)
        if self._running is None and not self._is_scheduled:
            self._run()

    def _report(self, task: asyncio.Task[None]) -> None:
        """Reports an exception, which `ProtocolConnection.execute` should not raise."""
        if not task.cancelled() and (error := task.exception()) is not None and self._session is not None:
            report_error(self._session.context.events, "command", error)
