"""The supervisor: starts the hub and the workers, replaces those that end, and ends all of them.

It serves nothing itself, and knows nothing of channels and clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from beaconfire.base.backoff import Backoff
from beaconfire.server.workers.child import Child, start_child
from beaconfire.server.workers.listeners import Listeners
from beaconfire.server.workers.seat import HUB, SECRET_BYTES, Seat, secret_file, status_file
from beaconfire.server.workers.status import ProcessStatus, SlotStatus, Status, write_status

START_TIMEOUT_S: Final = 30.0
"""How long a process may take until it serves. Then it is killed, and counts as ended."""

STABLE_S: Final = 10.0
"""A process that has lived this long works: earlier failures are forgotten, and its successor starts at once."""

HUB_STOP_TIMEOUT_S: Final = 10.0
"""How long the hub may take to end after the last worker."""


STOP_MARGIN_S: Final = 5.0
"""How much longer than `server.shutdown_timeout` a worker may take to end. Then it is killed."""


class Slot:
    """The place of the hub or of one worker: at most one process that serves, and one that hands its clients over."""

    def __init__(self, name: str, index: int | None) -> None:
        self.name = name
        self.index = index
        self.current: Child | None = None
        """The process that serves."""
        self.starting: Child | None = None
        self.retiring: Child | None = None
        self.cover: Child | None = None
        """The worker of another slot that accepts connections for this one."""
        self.restarts = 0
        self.failures = 0
        self.problem = ""
        self.lock = asyncio.Lock()
        """Held while a process is started."""
        self.replaced = asyncio.Event()
        """Set when a process that works has been replaced."""

    def processes(self) -> Iterator[Child]:
        for child in (self.current, self.starting, self.retiring):
            if child is not None:
                yield child


class SupervisorOptions(Struct, frozen=True):
    """`command` starts a child process; its seat is added. `config_file` and `overrides` are those of `Seat`.
    `stop_timeout_s` bounds the drain of a worker. `hub_start_timeout_s` is `START_TIMEOUT_S` for the hub."""

    command: Sequence[str]
    config_file: str | None
    overrides: dict[str, str]
    stop_timeout_s: float
    hub_start_timeout_s: float = START_TIMEOUT_S


class Supervisor:
    """Runs one hub and a worker for each entry of `listeners`, which it closes.

    Whatever a process does, the others go on. While a slot has no worker, the next one accepts its connections.
    """

    def __init__(self, options: SupervisorOptions, listeners: Listeners, log: FilteringBoundLogger) -> None:
        self._options = options
        self._listeners = listeners
        self._log = log
        self._hub = Slot(HUB, None)
        self._slots = [Slot(str(index), index) for index in range(len(listeners))]
        self._all = (self._hub, *self._slots)
        self._folder = tempfile.mkdtemp(prefix="beaconfire-")  # only this user may read it
        secret_file(self._folder).write_bytes(os.urandom(SECRET_BYTES))
        self._backoff = Backoff(random.random)
        self._stopping = asyncio.Event()
        self._roll_wanted = asyncio.Event()
        self._has_started = False

    async def run(self, on_started: Callable[[], None]) -> int:
        """Returns the exit code when a signal has ended all processes, or when they cannot start at all.

        `on_started` is called when all processes serve.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGHUP, self._roll_wanted.set)
        try:
            code = await self._start_all()
            if self._has_started:
                on_started()
                await self._keep_all()
            return code
        finally:
            await self._stop_all()
            shutil.rmtree(self._folder, ignore_errors=True)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    # Starting

    async def _start_all(self) -> int:
        """Starts the hub and then the workers. Returns 0, or the exit code of the first process that does not start:
        it has written the reason to the log."""
        for slots in ([self._hub], self._slots):
            results = await asyncio.gather(*(self._start(slot) for slot in slots))
            if self._stopping.is_set():
                return 0
            for slot, child in zip(slots, results, strict=True):
                if child.state != "ready":
                    await child.wait()
                    return max(child.exit_code or 0, 1)
                slot.current = child
        self._has_started = True
        self._publish()
        return 0

    async def _start(self, slot: Slot) -> Child:
        """Starts a process and returns when it is ready, or has ended: see its state."""
        seat = Seat(
            slot.name,
            slot.index,
            len(self._slots),
            self._folder,
            -1,
            self._options.config_file,
            self._options.overrides,
            () if slot is self._hub else tuple(tuple(sock.fileno() for sock in each) for each in self._listeners),
        )
        child = await start_child(self._options.command, seat, asyncio.get_running_loop().time())
        slot.starting = child
        self._publish()
        timeout_s = self._options.hub_start_timeout_s if slot is self._hub else START_TIMEOUT_S
        is_ready = await child.wait_ready(timeout_s)
        if not is_ready:
            await child.end(0)
        slot.starting = None
        if is_ready:
            child.state = "ready"
            self._log.info("process_started", name=slot.name, pid=child.pid)
        else:
            self._publish()
        return child

    # Replacing what has ended

    async def _keep_all(self) -> None:
        """Returns when the supervisor stops."""
        tasks = [asyncio.create_task(self._keep(slot)) for slot in self._all]
        tasks.append(asyncio.create_task(self._roll_when_asked()))
        stop = asyncio.create_task(self._stopping.wait())
        try:
            # A task that fails is a defect: everything ends, and the service manager starts the server again.
            done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()
        finally:
            for task in (stop, *tasks):
                task.cancel()
            await asyncio.gather(stop, *tasks, return_exceptions=True)

    async def _keep(self, slot: Slot) -> None:
        """Starts a new process whenever the current one has ended."""
        while True:
            child = slot.current
            assert child is not None
            stable = asyncio.get_running_loop().call_later(STABLE_S, self._on_stable, slot, child)
            slot.replaced.clear()
            how = await _wait_ended(slot, child)
            stable.cancel()
            if how is None:
                continue
            slot.current = None
            self._publish()
            async with slot.lock:
                await self._replace(slot, child, how)

    def _on_stable(self, slot: Slot, child: Child) -> None:
        if slot.current is child and slot.failures:
            slot.failures = 0
            self._publish()

    async def _replace(self, slot: Slot, child: Child, how: str) -> None:
        """Returns when the slot has a process that serves."""
        while slot.current is None:
            lived_s = asyncio.get_running_loop().time() - child.started_s
            slot.failures = slot.failures + 1 if lived_s < STABLE_S else 0
            slot.problem = how
            delay_s = self._backoff.delay_s(slot.failures - 1) if slot.failures > 1 else 0.0
            self._log.warning(
                "process_ended", name=slot.name, pid=child.pid, how=how, lived_s=round(lived_s, 1), delay_s=delay_s
            )
            self._publish()
            await asyncio.sleep(delay_s)
            slot.restarts += 1
            child = await self._start(slot)
            if child.state == "ready":
                slot.current = child
                self._publish()
            else:
                how = await child.wait()

    # Replacing all workers

    async def _roll_when_asked(self) -> None:
        while True:
            await self._roll_wanted.wait()
            self._roll_wanted.clear()
            self._log.info("roll_started", workers=len(self._slots))
            if await self._roll():
                self._log.info("roll_finished", workers=len(self._slots))

    async def _roll(self) -> bool:
        """Replaces the workers one after the other. Stops, with False, at the first one that does not start: the old
        worker of that slot and those of the following slots go on."""
        for slot in self._slots:
            async with slot.lock:
                child = await self._start(slot)
                if child.state != "ready":
                    self._log.error("roll_stopped", name=slot.name, how=await child.wait())
                    return False
                old, slot.current = slot.current, child
                slot.failures = 0
                slot.replaced.set()
            self._publish()
            if old is not None:
                await self._retire(slot, old)
        return True

    async def _retire(self, slot: Slot, old: Child) -> None:
        """Returns when the old worker has handed its clients over and has ended."""
        old.state = "retiring"
        slot.retiring = old
        old.tell("retire")
        self._publish()
        await old.end(self._options.stop_timeout_s)
        slot.retiring = None
        self._publish()

    # Covering

    def _publish(self) -> None:
        """Makes another worker accept for each slot without one, and writes the status file. Call this after each
        change."""
        if self._has_started:
            for slot in self._slots:
                self._cover(slot)
        processes = tuple(
            ProcessStatus(slot.name, child.pid, child.state) for slot in self._all for child in slot.processes()
        )
        slots = tuple(SlotStatus(slot.name, slot.restarts, slot.failures, slot.problem) for slot in self._all)
        with contextlib.suppress(FileNotFoundError):  # the folder is gone: an administrator has removed it
            write_status(status_file(self._folder), Status(processes, slots))

    def _cover(self, slot: Slot) -> None:
        serving = [other.current for other in self._slots if other.current is not None]
        if slot.current is not None:
            if slot.cover in serving:
                slot.cover.tell(f"release {slot.index}")
            slot.cover = None
        elif slot.cover not in serving:
            assert slot.index is not None
            following = [*self._slots[slot.index + 1 :], *self._slots[: slot.index]]
            slot.cover = next((other.current for other in following if other.current is not None), None)
            if slot.cover is not None:
                slot.cover.tell(f"adopt {slot.index}")

    # Stopping

    def _on_stop_signal(self) -> None:
        """The first signal starts the drain of all workers, the second skips its waits."""
        self._stopping.set()
        for sockets in self._listeners:
            for sock in sockets:
                sock.close()  # the workers have their own descriptors until they stop listening
        for slot in self._slots:
            for child in slot.processes():
                child.send_signal(signal.SIGTERM)

    async def _stop_all(self) -> None:
        """Ends the workers, and then the hub, which they need until their end."""
        if not self._stopping.is_set():
            self._on_stop_signal()
        workers = [child for slot in self._slots for child in slot.processes()]
        await asyncio.gather(*(child.end(self._options.stop_timeout_s) for child in workers))
        for child in self._hub.processes():
            child.send_signal(signal.SIGTERM)
            await child.end(HUB_STOP_TIMEOUT_S)


async def _wait_ended(slot: Slot, child: Child) -> str | None:
    """Returns how the current process of the slot has ended, or None as soon as another process has replaced it."""
    ended, replaced = asyncio.ensure_future(child.wait()), asyncio.ensure_future(slot.replaced.wait())
    try:
        await asyncio.wait([ended, replaced], return_when=asyncio.FIRST_COMPLETED)
        return ended.result() if ended.done() and slot.current is child else None
    finally:
        ended.cancel()
        replaced.cancel()
