"""Deadlines of many calls: in time, one by one, and without touching other cancellations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.base.deadlines import EXPIRIES_PER_TURN, Deadlines
from beaconfire.base.timers import Timers

TIMEOUT_S = 3.0


class Setup:
    """Calls that wait for their future or for their deadline."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.deadlines = Deadlines(TIMEOUT_S, self.timers)

    def call(self, answer: asyncio.Future[str] | None = None, more_s: float = 0.0) -> asyncio.Task[str]:
        """Returns the answer, or "late" at the deadline."""

        async def wait() -> str:
            deadline = self.deadlines.start(more_s)
            try:
                result = await (answer or asyncio.get_running_loop().create_future())
            except asyncio.CancelledError:
                if deadline.finish():
                    return "late"
                raise
            deadline.finish()
            return str(result)

        return asyncio.ensure_future(wait())

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()
        await settle()


async def settle() -> None:
    """Lets every task continue until it waits for something that the test controls."""
    for _ in range(5):
        await asyncio.sleep(0)


def run(scenario: Callable[[Setup], Coroutine[Any, Any, None]]) -> None:
    async def play() -> None:
        await scenario(Setup())

    asyncio.run(play())


def test_each_call_ends_at_its_own_deadline() -> None:
    """Calls begin at different times, and one of them has more time. All but one of them share one timer."""

    async def scenario(s: Setup) -> None:
        first = s.call()
        patient = s.call(more_s=2.0)
        await settle()
        await s.advance(1.0)
        second = s.call()
        await settle()
        assert len(s.timers) == 2
        await s.advance(1.9)
        assert not first.done()
        await s.advance(0.1)
        assert (first.done(), second.done()) == (True, False)
        await s.advance(1.0)
        assert (second.done(), patient.done()) == (True, False)
        await s.advance(1.0)
        assert [first.result(), second.result(), patient.result()] == ["late"] * 3
        assert len(s.timers) == 0
        assert len(s.deadlines._running) == 0

    run(scenario)


def test_a_call_that_ends_in_time_leaves_nothing() -> None:
    """Also with more time. The shared timer ends at its next run."""

    async def scenario(s: Setup) -> None:
        answers: list[asyncio.Future[str]] = [asyncio.get_running_loop().create_future() for _ in range(2)]
        calls = [s.call(answers[0]), s.call(answers[1], more_s=2.0)]
        await settle()
        for answer in answers:
            answer.set_result("answer")
        await settle()
        assert [call.result() for call in calls] == ["answer"] * 2
        await s.advance(TIMEOUT_S + 2.0)
        assert (len(s.timers), len(s.deadlines._running)) == (0, 0)
        later = s.call()
        await settle()
        await s.advance(TIMEOUT_S)
        assert later.result() == "late"

    run(scenario)


def test_an_answer_that_has_already_arrived_goes_first() -> None:
    """The loop was blocked until after the deadline. The call must not be thrown away."""

    async def scenario(s: Setup) -> None:
        for more_s in (0.0, 1.0, 0.0):
            answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            call = s.call(answer, more_s)
            await settle()
            answer.set_result("answer")
            await s.advance(TIMEOUT_S + more_s)
            assert call.result() == "answer"

    run(scenario)


@pytest.mark.parametrize("first", ["deadline", "caller"])
def test_the_cancellation_of_a_caller_goes_on(first: str) -> None:
    """If both happen in the same turn, the task ends cancelled, and not with an answer."""

    async def scenario(s: Setup) -> None:
        call = s.call()
        await settle()
        s.clock.advance(TIMEOUT_S)
        if first == "deadline":
            s.timers.run_due()
            asyncio.get_running_loop().call_soon(call.cancel)
        else:
            call.cancel()
            s.timers.run_due()
        await settle()
        assert call.cancelled()

    run(scenario)


def test_a_task_can_go_on_after_a_deadline() -> None:
    """The task is not marked as cancelled: a later timeout of the caller works, and a later call has a new deadline."""

    async def scenario(s: Setup) -> None:
        async def work() -> list[object]:
            results: list[object] = [await s.call()]
            deadline = s.deadlines.start()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                results.append(deadline.finish())
            task = asyncio.current_task()
            assert task is not None
            results.append(task.cancelling())
            try:
                async with asyncio.timeout(0):
                    await asyncio.get_running_loop().create_future()
            except TimeoutError:
                results.append("timeout")
            return results

        task = asyncio.ensure_future(work())
        await settle()
        await s.advance(TIMEOUT_S)
        await s.advance(TIMEOUT_S)
        assert await task == ["late", True, 0, "timeout"]

    run(scenario)


def test_a_call_that_ignores_its_deadline_keeps_its_answer() -> None:
    """The deadline cancels once. What the call returns later is its result."""

    async def scenario(s: Setup) -> None:
        async def stubborn() -> tuple[str, bool]:
            deadline = s.deadlines.start()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                pass
            await asyncio.sleep(0)
            other = s.call()
            await settle()
            other.cancel()
            return "answer", deadline.finish()

        task = asyncio.ensure_future(stubborn())
        await settle()
        await s.advance(TIMEOUT_S)
        await s.advance(TIMEOUT_S)
        await settle()
        assert await task == ("answer", True)

    run(scenario)


def test_a_deadline_needs_a_task() -> None:
    """A coroutine that somebody runs step by step cannot be cancelled."""
    deadlines = Deadlines(TIMEOUT_S, Timers(ManualClock()))

    async def scenario() -> str:
        failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def start() -> None:
            try:
                deadlines.start()
            except RuntimeError as error:
                failure.set_result(str(error))

        asyncio.get_running_loop().call_soon(start)
        return await failure

    assert asyncio.run(scenario()) == "a call with a deadline needs a task"


def test_a_deadline_expires_once() -> None:
    """Also if the timers run again before the task continues: a second cancellation would stay behind."""

    async def scenario(s: Setup) -> None:
        async def work() -> tuple[bool, int]:
            deadline = s.deadlines.start()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                pass
            task = asyncio.current_task()
            assert task is not None
            return deadline.finish(), task.cancelling()

        task = asyncio.ensure_future(work())
        await settle()
        s.clock.advance(TIMEOUT_S)
        s.timers.run_due()
        s.deadlines._run_due()
        await settle()
        assert await task == (True, 0)

    run(scenario)


def test_many_deadlines_expire_over_several_turns_of_the_event_loop() -> None:
    """Other work runs in between. Answers that come meanwhile are still in time, and all deadlines expire in the end,
    also those that are due later."""

    async def scenario(s: Setup) -> None:
        answer = asyncio.get_running_loop().create_future()
        calls = [s.call() for _ in range(3 * EXPIRIES_PER_TURN)]
        answered = s.call(answer)
        await settle()
        s.clock.advance(TIMEOUT_S)
        s.timers.run_due()
        counts = [0]
        while counts[-1] < len(calls):
            await asyncio.sleep(0)
            counts.append(sum(call.done() for call in calls))
            if counts[-1] == EXPIRIES_PER_TURN:
                answer.set_result("in time")
            assert counts[-1] - counts[-2] <= EXPIRIES_PER_TURN
            s.timers.run_due()
        assert {call.result() for call in calls} == {"late"}
        await settle()
        assert answered.result() == "in time"
        later = s.call()
        await settle()
        await s.advance(TIMEOUT_S)
        assert later.result() == "late"

    run(scenario)
