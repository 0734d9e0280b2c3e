"""Coroutines that run without a task until they suspend."""

from __future__ import annotations

import asyncio

import pytest

from beaconfire.base.tasks import BackgroundTasks, run_eagerly
from tests.unit.kit import settle


def test_a_coroutine_that_never_suspends_needs_no_task_and_no_loop() -> None:
    """The coroutine has finished when `run_eagerly` returns, even without a running event loop."""
    steps: list[str] = []

    async def work() -> None:
        steps.append("done")

    assert run_eagerly(work()) is None
    assert steps == ["done"]


def test_an_exception_before_the_first_suspension_reaches_the_caller() -> None:
    """There is no task that could hold the exception."""

    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_eagerly(fail())


def test_a_coroutine_that_suspends_continues_in_a_task() -> None:
    """No step runs twice, and the coroutine gets the results of its awaits."""

    async def scenario() -> list[str]:
        steps: list[str] = []
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            steps.append("begun")
            steps.append(await future)
            await asyncio.sleep(0)
            steps.append("done")

        task = run_eagerly(work())
        assert task is not None
        assert steps == ["begun"]
        future.set_result("answered")
        await task
        return steps

    assert asyncio.run(scenario()) == ["begun", "answered", "done"]


def test_exceptions_of_awaited_futures_reach_the_coroutine() -> None:
    """The coroutine can handle such an exception; an exception that it does not handle belongs to its task."""

    async def scenario() -> tuple[list[str], BaseException | None]:
        handled: list[str] = []
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        second: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            try:
                await first
            except ValueError as error:
                handled.append(str(error))
            await second

        task = run_eagerly(work())
        assert task is not None
        first.set_exception(ValueError("first"))
        await settle()
        second.set_exception(KeyError("second"))
        await asyncio.wait([task])
        return handled, task.exception()

    handled, error = asyncio.run(scenario())
    assert handled == ["first"]
    assert isinstance(error, KeyError)


def test_cancelling_the_task_cancels_the_coroutine() -> None:
    """The `finally` block of the coroutine runs, and the task counts as cancelled."""

    async def scenario() -> tuple[list[str], bool]:
        steps: list[str] = []

        async def work() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                steps.append("cleaned")

        task = run_eagerly(work())
        assert task is not None
        await settle()
        task.cancel()
        await asyncio.wait([task])
        return steps, task.cancelled()

    assert asyncio.run(scenario()) == (["cleaned"], True)


def test_a_future_may_be_done_before_the_task_starts() -> None:
    """The coroutine waits for a future that has its result before the task looks at it."""

    async def scenario() -> list[int]:
        results: list[int] = []
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            results.append(await future)

        task = run_eagerly(work())
        assert task is not None
        future.set_result(7)
        await task
        return results

    assert asyncio.run(scenario()) == [7]


def test_background_failures_are_reported_and_do_not_reach_the_caller() -> None:
    """An exception is reported whether it is raised immediately or later. The caller continues in both cases."""

    async def scenario() -> list[str]:
        errors: list[str] = []
        background = BackgroundTasks(lambda error: errors.append(repr(error)))

        async def fail(waits: bool) -> None:
            if waits:
                await asyncio.sleep(0)
            raise ValueError(waits)

        background.start(fail(waits=False))
        assert errors == ["ValueError(False)"]
        background.start(fail(waits=True))
        assert len(background) == 1
        await background.wait_idle()
        assert len(background) == 0
        return errors

    assert asyncio.run(scenario()) == ["ValueError(False)", "ValueError(True)"]


def test_wait_idle_includes_coroutines_started_meanwhile() -> None:
    """A background coroutine may start another one just before it ends."""

    async def scenario() -> list[str]:
        steps: list[str] = []
        background = BackgroundTasks(lambda error: steps.append(repr(error)))

        async def second() -> None:
            await asyncio.sleep(0)
            steps.append("second")

        async def first() -> None:
            await asyncio.sleep(0)
            background.start(second())
            steps.append("first")

        background.start(first())
        await background.wait_idle()
        return steps

    assert asyncio.run(scenario()) == ["first", "second"]
