"""Many coroutines at once, without a task for any that does not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from beaconfire.base.tasks import run_eagerly

SLICE = 256
"""Coroutines begun before the event loop has its turn: a few milliseconds' worth."""


async def run_all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Begins them in their order, each up to its first wait, and returns when all have finished.

    They must not raise. `coroutines` should be lazy, so that none is left unbegun if this is cancelled.
    """
    tasks: list[asyncio.Task[None]] = []
    for number, coroutine in enumerate(coroutines, 1):
        task = run_eagerly(coroutine)
        if task is not None:
            tasks.append(task)
        if number % SLICE == 0:
            await asyncio.sleep(0)
    if tasks:
        await asyncio.gather(*tasks)
