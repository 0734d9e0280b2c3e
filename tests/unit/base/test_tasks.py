"""Coroutines that run on the spot as long as they do not wait."""

from __future__ import annotations

import asyncio

import pytest

from beaconfire.base.tasks import Background, run_eagerly
from tests.unit.kit import settle


def test_one_that_never_waits_needs_no_task_and_no_loop() -> None:
    """It has finished when the call returns, without a running event loop."""
    steps: list[str] = []

    async def work() -> None:
        steps.append("done")

    assert run_eagerly(work()) is None
    assert steps == ["done"]


def test_what_it_raises_before_waiting_is_raised_here() -> None:
    """There is no task to carry the error."""

    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_eagerly(fail())


def test_one_that_waits_goes_on_in_a_task_where_it_stands() -> None:
    """Nothing is run twice, and results of what it awaits reach it."""

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


def test_errors_of_what_it_awaits_reach_it() -> None:
    """It can handle them, and what it does not handle is its task's."""

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
    """Its `finally` runs, and the task counts as cancelled."""

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


def test_a_future_that_is_done_before_the_task_starts_is_no_trouble() -> None:
    """The coroutine waits for something that is there by the time the task looks at it."""

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


def test_background_failures_are_reported_and_hurt_nobody() -> None:
    """At once or later, whoever started it goes on."""

    async def scenario() -> list[str]:
        errors: list[str] = []
        background = Background(lambda error: errors.append(repr(error)))

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


def test_waiting_for_idle_waits_for_what_was_started_meanwhile() -> None:
    """A background coroutine may start another one as its last deed."""

    async def scenario() -> list[str]:
        steps: list[str] = []
        background = Background(lambda error: steps.append(repr(error)))

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
