"""Many coroutines started in order, with tasks only for those that suspend."""

from __future__ import annotations

import asyncio

from beaconfire.base.tasks import COROUTINES_PER_SLICE, gather_eagerly


def test_coroutines_that_never_suspend_need_no_task() -> None:
    """They run in order, in the task of the caller."""
    done: list[int] = []

    async def work(number: int) -> None:
        done.append(number)

    async def main() -> None:
        await gather_eagerly(work(number) for number in range(5))
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert done == list(range(5))


def test_coroutines_that_suspend_overlap() -> None:
    """All coroutines are started before the first one ends, and all have ended when the call returns."""
    begun: list[int] = []
    ended: list[int] = []

    async def main() -> None:
        third_started = asyncio.Event()

        async def work(number: int) -> None:
            begun.append(number)
            if number == 2:
                third_started.set()
            await third_started.wait()
            ended.append(number)

        await gather_eagerly(work(number) for number in range(3))

    asyncio.run(main())
    assert begun == [0, 1, 2]
    assert sorted(ended) == [0, 1, 2]


def test_the_event_loop_runs_other_work_between_slices() -> None:
    """After each slice of coroutines."""
    done: list[int] = []
    seen: list[int] = []

    async def work(number: int) -> None:
        done.append(number)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: seen.append(len(done)))
        await gather_eagerly(work(number) for number in range(COROUTINES_PER_SLICE + 1))

    asyncio.run(main())
    assert seen == [COROUTINES_PER_SLICE]
