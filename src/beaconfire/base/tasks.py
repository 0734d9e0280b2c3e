"""Runs coroutines: in one step if they never suspend, otherwise in real tasks of asyncio.

Most commands use only data of this process and never suspend, and creating a task would cost more than the command
itself. Code that may suspend always runs in a task, because `asyncio.timeout`, context variables and libraries such as
anyio need a current task.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Final, TypeVar

T = TypeVar("T")


class SuspendedError(RuntimeError):
    """A coroutine has suspended although its owner has declared that it never suspends."""


def run_in_one_step(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends. Raises what the coroutine raises, and SuspendedError if it
    suspends: then the coroutine is closed. The error names the coroutines that waited for each other, innermost last.
    """
    try:
        coroutine.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    names = " > ".join(_awaited_names(coroutine))
    coroutine.close()
    raise SuspendedError(f"suspended, although it must not: {names}")


def _awaited_names(coroutine: Any) -> Iterator[str]:
    """The qualified names of a suspended coroutine and of the coroutines that it waits for."""
    while inspect.iscoroutine(coroutine):
        yield coroutine.__qualname__
        coroutine = coroutine.cr_await


if sys.version_info >= (3, 12):

    def start_task(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs a coroutine in a task. The caller must keep a reference to the task.

        The coroutine starts at once; the task is done if the coroutine has not suspended.
        """
        return asyncio.Task(coroutine, loop=asyncio.get_running_loop(), eager_start=True)

else:

    def start_task(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs a coroutine in a task. The caller must keep a reference to the task.

        The coroutine starts on the next turn of the event loop.
        """
        return asyncio.get_running_loop().create_task(coroutine)


def is_being_cancelled() -> bool:
    """Whether somebody has cancelled the current task. If not, a CancelledError comes from the code that the task has
    awaited, for example from a future that this code had cancelled itself: it is a failure like any other."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


COROUTINES_PER_SLICE: Final = 256
"""How many coroutines `run_all` runs before other work of the event loop runs: a few milliseconds, if they do not
suspend. It is also the number of coroutines that run at the same time, if they do."""


async def run_all(coroutines: Iterable[Coroutine[Any, Any, None]], concurrently: bool) -> None:
    """Runs many coroutines, which must not raise, and returns when all have finished.

    With `concurrently` each coroutine has a task, and they start in order. Otherwise they run one after the other,
    which is cheaper for coroutines that do not suspend. `coroutines` should be a generator, so that no coroutine object
    is left over if this call is cancelled.
    """
    tasks: set[asyncio.Task[None]] = set()
    try:
        for number, coroutine in enumerate(coroutines, 1):
            if not concurrently:
                await coroutine
                if number % COROUTINES_PER_SLICE == 0:
                    await asyncio.sleep(0)
                continue
            tasks.add(start_task(coroutine))
            if len(tasks) >= COROUTINES_PER_SLICE:
                tasks = (await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))[1]
        if tasks:
            await asyncio.wait(tasks)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        raise


class BackgroundTasks:
    """Runs coroutines in the background: keeps references to their tasks and reports their exceptions.

    `on_error` is called with each exception other than a cancellation. It must not raise.
    """

    def __init__(self, on_error: Callable[[BaseException], None], engine_suspends: bool = True) -> None:
        """`engine_suspends` is `Engine.suspends` of the node's engine."""
        self.engine_suspends = engine_suspends
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_error = on_error

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine that may suspend in a task. Never raises."""
        task = start_task(coroutine)
        if task.done():  # pragma: no cover - only from Python 3.12 on
            self._report(task)
        else:
            self._tasks.add(task)
            task.add_done_callback(self._on_done)

    def keep(self, task: asyncio.Task[None]) -> None:
        """Waits for a task of somebody else, and cancels it, with the others. Reports nothing."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def start_engine_work(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine that suspends only if the engine does: in one step, or in a task. Never raises an
        `Exception`."""
        if self.engine_suspends:
            self.start(coroutine)
            return
        try:
            run_in_one_step(coroutine)
        except Exception as error:  # noqa: BLE001 - a failure in the background must not affect the caller
            self._on_error(error)

    def report(self, error: BaseException) -> None:
        """Calls `on_error`, for work that handles its failures itself."""
        self._on_error(error)

    def cancel(self) -> None:
        """Cancels all tasks."""
        for task in list(self._tasks):
            task.cancel()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._report(task)

    def _report(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(error)

    async def wait_idle(self) -> None:
        """Returns when all coroutines have finished, including those that were started while this waits."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def __len__(self) -> int:
        """Number of unfinished tasks."""
        return len(self._tasks)
