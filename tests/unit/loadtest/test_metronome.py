"""Time is kept: never early, and once for each wait."""

from __future__ import annotations

import asyncio
import time

from beaconfire.loadtest.metronome import Metronome


def test_never_early() -> None:
    """A time to come is waited for; one that is over is not, not even the very first."""

    async def waits() -> None:
        with Metronome() as metronome:
            for after_ns in (2_000_000, 300_000, 0, -1_000_000):
                when_ns = time.monotonic_ns() + after_ns
                await metronome.wait_until(when_ns)
                assert time.monotonic_ns() >= when_ns
            await metronome.wait_until(0)

    asyncio.run(asyncio.wait_for(waits(), 10))


def test_a_wait_that_was_given_up() -> None:
    """The next one is not disturbed by it."""

    async def waits() -> None:
        with Metronome() as metronome:
            given_up = asyncio.ensure_future(metronome.wait_until(time.monotonic_ns() + 1_000_000))
            await asyncio.sleep(0)
            given_up.cancel()
            when_ns = time.monotonic_ns() + 3_000_000
            await metronome.wait_until(when_ns)
            assert time.monotonic_ns() >= when_ns

    asyncio.run(asyncio.wait_for(waits(), 10))
