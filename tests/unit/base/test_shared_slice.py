"""One slice of time in each turn of the event loop, for many tasks together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from beaconfire.base.clock import ManualClock
from beaconfire.base.loop import SLICE_S, SharedSlice
from tests.unit.kit import settle


def test_tasks_share_the_slice_of_a_turn() -> None:
    """Those that find no time left continue on a later turn, in slices."""

    async def scenario() -> None:
        clock = ManualClock()
        scheduled: list[Callable[[], None]] = []
        shared = SharedSlice(scheduled.append, clock.now_s)
        worked: list[int] = []

        async def work(number: int) -> None:
            await shared.enter()
            worked.append(number)
            clock.advance(SLICE_S * 0.6)

        tasks = [asyncio.ensure_future(work(number)) for number in range(5)]
        await settle()
        assert worked == [0, 1]
        for expected in ([0, 1, 2, 3], [0, 1, 2, 3, 4]):
            assert len(scheduled) == 1
            scheduled.pop()()
            await settle()
            assert worked == expected
        await asyncio.gather(*tasks)
        clock.advance(1)
        await shared.enter()
        assert scheduled == []

    asyncio.run(scenario())


def test_cancelled_task_does_not_disturb_the_others() -> None:
    """The turn comes for those that are left."""

    async def scenario() -> None:
        clock = ManualClock()
        scheduled: list[Callable[[], None]] = []
        shared = SharedSlice(scheduled.append, clock.now_s)
        await shared.enter()
        clock.advance(SLICE_S)
        first, second = (asyncio.ensure_future(shared.enter()) for _ in range(2))
        await settle()
        first.cancel()
        await settle()
        scheduled.pop()()
        await second

    asyncio.run(scenario())
