"""Coroutines that run in one step, and coroutines that run in tasks."""

from __future__ import annotations

import asyncio
import contextvars
import sys

import pytest

from beaconfire.base.tasks import BackgroundTasks, SuspendedError, run_in_one_step, start_task
from tests.unit.kit import settle

STARTS_AT_ONCE = sys.version_info >= (3, 12)
"""Whether `start_task` runs a coroutine up to its first suspension."""


# --- run_in_one_step --------------------------------------------------------------------------------------------------


def test_a_coroutine_that_never_suspends_needs_no_task_and_no_loop() -> None:
    """`run_in_one_step` returns the result of the coroutine, even without a running event loop."""
    steps: list[str] = []

    async def inner() -> int:
        steps.append("inner")
        return 7

    async def work() -> int:
        return await inner() + 1

    assert run_in_one_step(work()) == 8
    assert steps == ["inner"]


def test_an_exception_in_one_step_reaches_the_caller() -> None:
    """There is no task that could hold the exception."""

    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_in_one_step(fail())


def test_a_coroutine_that_suspends_in_one_step_is_closed() -> None:
    """Its `finally` blocks run, and the error names the coroutine. Nothing continues it later."""

    async def scenario() -> list[str]:
        steps: list[str] = []
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            try:
                await future
                steps.append("continued")
            finally:
                steps.append("cleaned")

        with pytest.raises(SuspendedError, match="work"):
            run_in_one_step(work())
        assert steps == ["cleaned"]
        future.set_result(None)
        await settle()
        return steps

    assert asyncio.run(scenario()) == ["cleaned"]


def test_the_error_names_the_coroutines_down_to_the_one_that_suspended() -> None:
    """So the author of a policy finds the method that must be listed in `Policy.suspending`."""

    class Inner:
        async def decide(self) -> None:
            await asyncio.sleep(0)

    async def outer() -> None:
        await Inner().decide()

    with pytest.raises(SuspendedError, match=r"outer > .*Inner\.decide > sleep$"):
        run_in_one_step(outer())


# --- start_task -------------------------------------------------------------------------------------------------------


def test_a_task_runs_the_coroutine_to_its_end() -> None:
    """No step runs twice, and the coroutine gets the results of its awaits."""

    async def scenario() -> tuple[list[str], str]:
        steps: list[str] = []
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def work() -> str:
            steps.append("begun")
            steps.append(await future)
            await asyncio.sleep(0)
            steps.append("done")
            return "result"

        task = start_task(work())
        assert steps == (["begun"] if STARTS_AT_ONCE else [])
        future.set_result("answered")
        return steps, await task

    assert asyncio.run(scenario()) == (["begun", "answered", "done"], "result")


def test_a_coroutine_that_does_not_suspend_is_done_when_it_starts() -> None:
    """At once, or on the next turn of the event loop."""

    async def scenario() -> None:
        async def work() -> int:
            return 7

        task = start_task(work())
        assert task.done() == STARTS_AT_ONCE
        await asyncio.sleep(0)
        assert task.result() == 7

    asyncio.run(scenario())


def test_a_coroutine_in_a_task_is_the_current_task_from_its_first_step() -> None:
    """So `asyncio.timeout` and context variables work before the first suspension as well."""

    async def scenario() -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="of the caller")
        current: list[asyncio.Task[None] | None] = []

        async def work() -> None:
            current.append(asyncio.current_task())
            variable.set("of the task")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await asyncio.get_running_loop().create_future()
            current.append(asyncio.current_task())

        task = start_task(work())
        await task
        assert current == [task, task]
        assert variable.get() == "of the caller"

    asyncio.run(scenario())


def test_an_exception_belongs_to_the_task() -> None:
    """Also an exception before the first suspension: it does not reach the caller of `start_task`. The coroutine can
    handle exceptions of the futures that it awaits."""

    async def scenario() -> tuple[list[str], BaseException | None, BaseException | None]:
        handled: list[str] = []
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def fail_at_once() -> None:
            raise KeyError("at once")

        async def fail_later() -> None:
            try:
                await future
            except ValueError as error:
                handled.append(str(error))
            raise KeyError("later")

        tasks = [start_task(fail_at_once()), start_task(fail_later())]
        await settle()
        future.set_exception(ValueError("handled"))
        await asyncio.wait(tasks)
        return handled, tasks[0].exception(), tasks[1].exception()

    handled, at_once, later = asyncio.run(scenario())
    assert handled == ["handled"]
    assert (repr(at_once), repr(later)) == ("KeyError('at once')", "KeyError('later')")


def test_cancelling_the_task_cancels_the_coroutine() -> None:
    """The `finally` block of the coroutine runs, and the task counts as cancelled."""

    async def scenario() -> tuple[list[str], bool]:
        steps: list[str] = []

        async def work() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                steps.append("cleaned")

        task = start_task(work())
        await settle()
        task.cancel()
        await asyncio.wait([task])
        return steps, task.cancelled()

    assert asyncio.run(scenario()) == (["cleaned"], True)


def test_a_future_may_be_done_before_the_task_continues() -> None:
    """The coroutine waits for a future that has its result before the task looks at it."""

    async def scenario() -> list[int]:
        results: list[int] = []
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            results.append(await future)

        task = start_task(work())
        future.set_result(7)
        await task
        return results

    assert asyncio.run(scenario()) == [7]


# --- BackgroundTasks --------------------------------------------------------------------------------------------------


def test_background_failures_are_reported_and_do_not_reach_the_caller() -> None:
    """An exception is reported once, whether it is raised before or after the first suspension."""

    async def scenario() -> list[str]:
        errors: list[str] = []
        background = BackgroundTasks(lambda error: errors.append(repr(error)))

        async def fail(waits: bool) -> None:
            if waits:
                await asyncio.sleep(0)
            raise ValueError(waits)

        background.start(fail(waits=False))
        background.start(fail(waits=True))
        assert len(background) == (1 if STARTS_AT_ONCE else 2)
        await background.wait_idle()
        assert len(background) == 0
        return errors

    assert asyncio.run(scenario()) == ["ValueError(False)", "ValueError(True)"]


def test_work_for_an_engine_that_never_suspends_runs_in_one_step() -> None:
    """Without a task and without an event loop. A failure is reported, and so is a coroutine that suspends although
    the engine must not: it is closed."""
    steps: list[str] = []
    errors: list[BaseException] = []
    background = BackgroundTasks(errors.append, engine_suspends=False)

    async def work() -> None:
        steps.append("done")

    async def fail() -> None:
        raise ValueError("failed")

    async def suspend() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            steps.append("closed")

    background.start_engine_work(work())
    background.start_engine_work(fail())
    background.start_engine_work(suspend())
    assert steps == ["done", "closed"]
    assert [type(error) for error in errors] == [ValueError, SuspendedError]
    assert len(background) == 0


def test_work_for_an_engine_that_suspends_runs_in_a_task() -> None:
    """As with `start`, so that the engine can use timeouts. This is the default."""

    async def scenario() -> tuple[list[str], list[str]]:
        steps: list[str] = []
        errors: list[str] = []
        background = BackgroundTasks(lambda error: errors.append(repr(error)))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            async with asyncio.timeout(60):
                await future
            steps.append("done")
            raise ValueError("failed")

        background.start_engine_work(work())
        await settle()
        assert (steps, len(background)) == ([], 1)
        future.set_result(None)
        await background.wait_idle()
        return steps, errors

    assert asyncio.run(scenario()) == (["done"], ["ValueError('failed')"])


def test_a_cancelled_background_task_is_no_failure() -> None:
    """Whoever cancels a task knows that the task has not finished."""

    async def scenario() -> list[str]:
        errors: list[str] = []
        background = BackgroundTasks(lambda error: errors.append(repr(error)))
        inner: list[asyncio.Task[None] | None] = []

        async def work() -> None:
            inner.append(asyncio.current_task())
            await asyncio.get_running_loop().create_future()

        background.start(work())
        await settle()
        [task] = inner
        assert task is not None
        task.cancel()
        await background.wait_idle()
        assert len(background) == 0
        return errors

    assert asyncio.run(scenario()) == []


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
