"""Runs test scenarios and waits for conditions. Both fail at a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

DEADLINE_S = 20.0
"""How long an operation may take that normally completes at once. The value is generous for busy machines."""

SCENARIO_DEADLINE_S = 50.0
POLL_INTERVAL_S = 0.02

T = TypeVar("T")


def run_scenario(scenario: Coroutine[Any, Any, T], deadline_s: float = SCENARIO_DEADLINE_S) -> T:
    """Runs a coroutine in a new event loop. Raises TimeoutError if the coroutine takes longer than `deadline_s`."""

    async def run_with_deadline() -> T:
        async with asyncio.timeout(deadline_s):
            return await scenario

    return asyncio.run(run_with_deadline())


async def wait_until(
    condition: Callable[[], bool | Awaitable[bool]], description: str, deadline_s: float = DEADLINE_S
) -> None:
    """Returns when the condition holds. Raises AssertionError with the description at the deadline."""
    end_s = time.monotonic() + deadline_s
    while True:
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return
        assert time.monotonic() < end_s, f"not true after {deadline_s} s: {description}"
        await asyncio.sleep(POLL_INTERVAL_S)
