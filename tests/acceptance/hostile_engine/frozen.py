"""An engine that stops to work for a while, as a process that the operating system has stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from beaconfire.engines.interceptor import EngineCall

T = TypeVar("T")

CALLS_PER_TURN: Final = 256
"""How many answers of the engine arrive in one turn of the event loop."""


class Freezer:
    """Implements `CallInterceptor`. While the engine is frozen, calls wait in the order in which they were made.

    When the engine works again, all of them take effect in this order, also those whose callers have given up.
    """

    def __init__(self) -> None:
        self.is_frozen = False
        self._waiting: list[asyncio.Future[None]] = []
        self._running: set[asyncio.Task[Any]] = set()

    async def call(
        self, name: EngineCall, running: Coroutine[Any, Any, T], *arguments: object, waits_s: float = 0.0
    ) -> T:
        await asyncio.sleep(0)
        if not self.is_frozen:
            return await running
        thawed = asyncio.get_running_loop().create_future()
        self._waiting.append(thawed)
        task = asyncio.get_running_loop().create_task(self._run(thawed, running))
        self._running.add(task)
        task.add_done_callback(self._on_done)
        return await asyncio.shield(task)

    async def _run(self, thawed: asyncio.Future[None], running: Coroutine[Any, Any, T]) -> T:
        await thawed
        return await running

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        task.exception()  # the caller may have gone

    async def thaw(self) -> None:
        """The engine answers a few calls in each turn of the event loop. Later calls wait until it has done."""
        while self._waiting:
            for thawed in self._waiting[:CALLS_PER_TURN]:
                thawed.set_result(None)
            del self._waiting[:CALLS_PER_TURN]
            await asyncio.sleep(0)
        self.is_frozen = False
