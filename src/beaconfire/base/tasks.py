"""Runs coroutines without a task until they suspend.

Most commands use only data of this process and never suspend, and creating a task would cost more than the command
itself. So `run_eagerly` starts a coroutine immediately, and creates a task only if the coroutine suspends. Python 3.12
has a similar feature, `asyncio.eager_task_factory`; this module works with Python 3.11 and creates no task at all for
a coroutine that never suspends.

Until the first suspension there is no current task. Code that needs one (`asyncio.timeout`, anyio) must run in a task
of its own.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any, Final


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, None], waiting: Any) -> Generator[Any, Any, None]:
    """Continues a coroutine that has been started and has yielded `waiting`."""
    while True:
        try:
            try:
                value = yield waiting
            except BaseException as error:  # noqa: BLE001 - the coroutine gets every exception that is thrown into the task
                waiting = coroutine.throw(error)
            else:
                waiting = coroutine.send(value)
        except StopIteration:
            return


async def _finish(coroutine: Coroutine[Any, Any, None], waiting: Any) -> None:
    await _resume(coroutine, waiting)


def run_eagerly(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Runs `coroutine` up to its first suspension.

    Returns None if the coroutine has finished, otherwise the task that runs the rest; the caller must keep a
    reference to the task. An exception before the first suspension is raised here, a later one belongs to the task.
    """
    try:
        waiting = coroutine.send(None)
    except StopIteration:
        return None
    return asyncio.get_running_loop().create_task(_finish(coroutine, waiting))


COROUTINES_PER_SLICE: Final = 256
"""How many coroutines `gather_eagerly` starts before other work of the event loop runs: a few milliseconds."""


async def gather_eagerly(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs many coroutines concurrently, with a task only for those that suspend.

    Starts the coroutines in order, each up to its first suspension, and returns when all have finished. They must not
    raise. `coroutines` should be a generator, so that no coroutine object is left over if this call is cancelled.
    """
    tasks: list[asyncio.Task[None]] = []
    for number, coroutine in enumerate(coroutines, 1):
        task = run_eagerly(coroutine)
        if task is not None:
            tasks.append(task)
        if number % COROUTINES_PER_SLICE == 0:
            await asyncio.sleep(0)
    if tasks:
        await asyncio.gather(*tasks)


class BackgroundTasks:
    """Runs coroutines in the background: keeps references to their tasks and reports their exceptions.

    `on_error` is called with each exception other than a cancellation. It must not raise.
    """

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_error = on_error

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs `coroutine` eagerly. Never raises an `Exception`."""
        try:
            task = run_eagerly(coroutine)
        except Exception as error:  # noqa: BLE001 - a failure in the background must not affect the caller
            self._on_error(error)
            return
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(error)

    async def wait_idle(self) -> None:
        """Returns when all coroutines have finished, including those that were started while this waits."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def __len__(self) -> int:
        """Number of unfinished tasks."""
        return len(self._tasks)
