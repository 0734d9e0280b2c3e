"""Many coroutines begun in order, with tasks only for those that wait."""

from __future__ import annotations

import asyncio

from beaconfire.api.eagerly import SLICE, run_all


def test_coroutines_that_do_not_wait_make_no_task() -> None:
    """They run in their order, in the caller's own task."""
    done: list[int] = []

    async def work(number: int) -> None:
        done.append(number)

    async def main() -> None:
        await run_all(work(number) for number in range(5))
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert done == list(range(5))


def test_coroutines_that_wait_overlap() -> None:
    """All are begun before the first one ends, and all have ended when it returns."""
    begun: list[int] = []
    ended: list[int] = []

    async def main() -> None:
        gate = asyncio.Event()

        async def work(number: int) -> None:
            begun.append(number)
            if number == 2:
                gate.set()
            await gate.wait()
            ended.append(number)

        await run_all(work(number) for number in range(3))

    asyncio.run(main())
    assert begun == [0, 1, 2]
    assert sorted(ended) == [0, 1, 2]


def test_long_lists_let_others_have_a_turn() -> None:
    """The event loop runs something else after every slice."""
    done: list[int] = []
    seen: list[int] = []

    async def work(number: int) -> None:
        done.append(number)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: seen.append(len(done)))
        await run_all(work(number) for number in range(SLICE + 1))

    asyncio.run(main())
    assert seen == [SLICE]
