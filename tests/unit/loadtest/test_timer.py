"""The precise timer: never early, and each wait ends once."""

from __future__ import annotations

import asyncio
import time

from beaconfire.loadtest.timer import PreciseTimer


def test_a_wait_never_ends_early() -> None:
    """A wait for a future time ends at or after this time. A wait for a past time ends, even for time 0."""

    async def waits() -> None:
        with PreciseTimer() as timer:
            for after_ns in (2_000_000, 300_000, 0, -1_000_000):
                when_ns = time.monotonic_ns() + after_ns
                await timer.wait_until(when_ns)
                assert time.monotonic_ns() >= when_ns
            await timer.wait_until(0)

    asyncio.run(asyncio.wait_for(waits(), 10))


def test_a_cancelled_wait_does_not_affect_the_next_wait() -> None:
    """The next wait ends at its own time."""

    async def waits() -> None:
        with PreciseTimer() as timer:
            cancelled = asyncio.ensure_future(timer.wait_until(time.monotonic_ns() + 1_000_000))
            await asyncio.sleep(0)
            cancelled.cancel()
            when_ns = time.monotonic_ns() + 3_000_000
            await timer.wait_until(when_ns)
            assert time.monotonic_ns() >= when_ns

    asyncio.run(asyncio.wait_for(waits(), 10))
