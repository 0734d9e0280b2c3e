"""Deadlines of many calls. All share one timer, so a call that ends in time costs a third of `asyncio.timeout`."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from beaconfire.base.timers import Timer, Timers

EXPIRIES_PER_TURN: Final = 32
"""How many calls fail at their deadline in one turn of the event loop. Each failure is an error reply, lines in the log
and often a repetition, so some hundred of them together would keep the event loop busy for too long."""


class Deadline:
    """The deadline of one call, which runs in the task that has started the deadline.

    At the deadline the task is cancelled, so that the call gets CancelledError, and `expired` becomes true. The task
    must call `finish` as soon as the call has ended in any way.
    """

    __slots__ = ("_cancelling", "_deadlines", "_task", "due_s", "expired", "is_waiting", "timer")

    def __init__(self, deadlines: Deadlines, task: asyncio.Task[Any], due_s: float) -> None:
        self._deadlines = deadlines
        self._task = task
        self._cancelling = task.cancelling()
        self.due_s = due_s
        self.expired = False
        self.is_waiting = True
        """The time has not come yet."""
        self.timer: Timer | None = None
        """Only if the deadline is not in the common list."""

    def finish(self) -> bool:
        """Ends the deadline. True if it has expired and nobody else has cancelled the task.

        After a cancellation by somebody else the result is false, and CancelledError must go on.
        """
        self._deadlines.remove(self)
        if not self.expired:
            return False
        return self._task.uncancel() <= self._cancelling

    def expire(self) -> None:
        """Cancels the task once, unless the call has ended meanwhile."""
        if self in self._deadlines and not self.expired:
            self.expired = True
            self._task.cancel()


class Deadlines:
    """The deadlines of calls with the same time `timeout_s`. `timers` may be coarse."""

    def __init__(self, timeout_s: float, timers: Timers) -> None:
        self._timeout_s = timeout_s
        self._timers = timers
        self._now_s = timers.clock.now_s
        self._running: dict[Deadline, None] = {}
        """In the order of their times, apart from those with a timer of their own."""
        self._timer_is_set = False
        self._due: deque[Deadline] = deque()
        """Those whose time has come, until they expire."""

    def start(self, more_s: float = 0.0) -> Deadline:
        """Starts the deadline of a call of the current task, which has `more_s` seconds in addition.

        Raises RuntimeError outside a task, because only a task can be cancelled.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call with a deadline needs a task")
        deadline = Deadline(self, task, self._now_s() + self._timeout_s + more_s)
        self._running[deadline] = None
        if more_s:
            deadline.timer = self._timers.at(deadline.due_s, lambda: self._expire_soon(deadline))
        elif not self._timer_is_set:
            self._set_timer(deadline)
        return deadline

    def remove(self, deadline: Deadline) -> None:
        """`Deadline.finish` calls this."""
        del self._running[deadline]
        if deadline.timer is not None:
            deadline.timer.cancel()

    def __contains__(self, deadline: Deadline) -> bool:
        return deadline in self._running

    def _set_timer(self, first: Deadline) -> None:
        self._timer_is_set = True
        self._timers.at(first.due_s, self._run_due)

    def _run_due(self) -> None:
        self._timer_is_set = False
        now_s = self._now_s()
        for deadline in self._running:
            if deadline.timer is not None or not deadline.is_waiting:
                continue
            if deadline.due_s > now_s:
                self._set_timer(deadline)
                return
            self._expire_soon(deadline)

    def _expire_soon(self, deadline: Deadline) -> None:
        """If the event loop was blocked, answers may wait in it: they go first."""
        deadline.is_waiting = False
        if not self._due:
            asyncio.get_running_loop().call_soon(self._expire_some)
        self._due.append(deadline)

    def _expire_some(self) -> None:
        for _ in range(min(EXPIRIES_PER_TURN, len(self._due))):
            self._due.popleft().expire()
        if self._due:
            asyncio.get_running_loop().call_soon(self._expire_some)
