"""Running a coroutine without a task, as long as it does not really wait.

Most commands touch only this process and never suspend; a task for each would cost more than the command. So a
coroutine is stepped at once, on the spot, and only if it suspends does a task take it over where it stands.
Python 3.12 has the same idea as `asyncio.eager_task_factory`; this works from 3.11 and makes no task at all.

Until the first suspension there is no current task: what insists on one (`asyncio.timeout`, anyio) belongs behind
an `await` of a task of its own.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, None], waiting: Any) -> Generator[Any, Any, None]:
    """Drives a coroutine that has already been started and now waits for `waiting`."""
    while True:
        try:
            try:
                value = yield waiting
            except BaseException as error:  # noqa: BLE001 - whatever is thrown at the task is for the coroutine
                waiting = coroutine.throw(error)
            else:
                waiting = coroutine.send(value)
        except StopIteration:
            return


async def _finish(coroutine: Coroutine[Any, Any, None], waiting: Any) -> None:
    await _resume(coroutine, waiting)


def run_eagerly(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Runs `coroutine` up to its first suspension.

    Returns None if it has finished, else the task that finishes it; the caller must keep the task. What the
    coroutine raises before it suspends is raised here, afterwards it is the task's.
    """
    try:
        waiting = coroutine.send(None)
    except StopIteration:
        return None
    return asyncio.get_running_loop().create_task(_finish(coroutine, waiting))


class Background:
    """Coroutines nobody waits for. Keeps their tasks alive and reports what they raise."""

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_error = on_error

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs it eagerly. Never raises."""
        try:
            task = run_eagerly(coroutine)
        except Exception as error:  # noqa: BLE001 - a background failure must not hurt whoever started it
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
        """Returns when everything started so far, and what it started in turn, has finished."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def __len__(self) -> int:
        return len(self._tasks)
