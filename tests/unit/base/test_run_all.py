"""Many coroutines: one after the other, or at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from beaconfire.base.tasks import COROUTINES_PER_SLICE, run_all
from tests.unit.kit import settle


def test_coroutines_that_never_suspend_need_no_task() -> None:
    """They run in order, in the task of the caller."""
    done: list[int] = []

    async def work(number: int) -> None:
        done.append(number)

    async def main() -> None:
        await run_all((work(number) for number in range(5)), concurrently=False)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert done == list(range(5))


def test_coroutines_that_suspend_run_one_after_the_other_unless_concurrently() -> None:
    """The next one begins after the one before has ended."""
    steps: list[str] = []

    async def work(number: int) -> None:
        steps.append(f"begun {number}")
        await asyncio.sleep(0)
        steps.append(f"ended {number}")

    asyncio.run(run_all((work(number) for number in range(2)), concurrently=False))
    assert steps == ["begun 0", "ended 0", "begun 1", "ended 1"]


def test_coroutines_overlap_if_they_run_concurrently() -> None:
    """All coroutines are started, in order, before the first one ends. All have ended when the call returns."""
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

        await run_all((work(number) for number in range(3)), concurrently=True)

    asyncio.run(main())
    assert begun == [0, 1, 2]
    assert sorted(ended) == [0, 1, 2]


@pytest.mark.parametrize("concurrently", [False, True])
def test_no_coroutines(concurrently: bool) -> None:
    """There is nothing to wait for."""
    asyncio.run(run_all((), concurrently))


def test_the_event_loop_runs_other_work_between_slices() -> None:
    """After each slice of coroutines."""
    done: list[int] = []
    seen: list[int] = []

    async def work(number: int) -> None:
        done.append(number)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: seen.append(len(done)))
        await run_all((work(number) for number in range(COROUTINES_PER_SLICE + 1)), concurrently=False)

    asyncio.run(main())
    assert seen == [COROUTINES_PER_SLICE]


def test_the_number_of_coroutines_at_the_same_time_is_bounded() -> None:
    """The next one starts when any of them has ended, and not only the oldest."""
    count = COROUTINES_PER_SLICE + 3
    running: set[int] = set()
    ended: list[int] = []

    async def main() -> None:
        releases = [asyncio.Event() for _ in range(count)]

        async def work(number: int) -> None:
            running.add(number)
            await releases[number].wait()
            running.remove(number)
            ended.append(number)

        all_done = asyncio.create_task(run_all((work(number) for number in range(count)), concurrently=True))
        await settle()
        assert running == set(range(COROUTINES_PER_SLICE))
        releases[COROUTINES_PER_SLICE - 1].set()
        await settle()
        assert running == {*range(COROUTINES_PER_SLICE - 1), COROUTINES_PER_SLICE}
        for release in releases:
            release.set()
        await all_done

    asyncio.run(main())
    assert sorted(ended) == list(range(count))


def test_cancelling_the_call_cancels_the_coroutines_that_run() -> None:
    """Those that have not started are never made."""
    cancelled: list[int] = []
    made: list[int] = []

    async def main() -> None:
        async def work(number: int) -> None:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                cancelled.append(number)
                raise

        def coroutines() -> Iterator[Coroutine[Any, Any, None]]:
            for number in range(COROUTINES_PER_SLICE + 5):
                made.append(number)
                yield work(number)

        call = asyncio.create_task(run_all(coroutines(), concurrently=True))
        await settle()
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        await settle()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert sorted(cancelled) == sorted(made) == list(range(COROUTINES_PER_SLICE))
