"""Tells the policy about ended subscriptions and sessions: in batches, in order, and each once.

One call of the policy runs at a time, so a slow policy gets larger batches and never more calls. A batch that fails or
takes too long is reported and not repeated.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Generic, TypeVar

from beaconfire.base.tasks import BackgroundTasks, is_being_cancelled
from beaconfire.base.timers import Timer, Timers
from beaconfire.model.events import EventSink, LimitHit, report_error
from beaconfire.policy.port import EndedSession, EndedSubscription, Policy

BATCH_MAX: Final = 1000
"""Endings of one call of the policy."""

BATCH_DELAY_S: Final = 0.1
"""How long the first ending of a batch waits for others."""

WAITING_MAX: Final = 100_000
"""Endings that wait for a slow policy. If there are more, the oldest are dropped."""


T = TypeVar("T")


class _Batches(Generic[T]):
    """Endings of one kind that wait, and the method of the policy that gets them."""

    def __init__(self, name: str, tell: Callable[[Sequence[T]], Coroutine[Any, Any, None]]) -> None:
        self.name = name
        self.tell = tell
        self.waiting: deque[T] = deque()

    def take(self) -> Sequence[T]:
        return [self.waiting.popleft() for _ in range(min(len(self.waiting), BATCH_MAX))]


class Endings:
    """Collects what `Policy.unsubscribed` and `Policy.disconnected` get."""

    def __init__(
        self, policy: Policy, timeout_s: float, timers: Timers, background: BackgroundTasks, events: EventSink
    ) -> None:
        """`timeout_s` is the deadline of one call."""
        self._timeout_s = timeout_s
        self._timers = timers
        self._background = background
        self._events = events
        self._subscriptions: _Batches[EndedSubscription] = _Batches("unsubscribed", policy.unsubscribed)
        self._sessions: _Batches[EndedSession] = _Batches("disconnected", policy.disconnected)
        self._timer: Timer | None = None
        """Set while a batch waits for its start."""
        self._is_telling = False

    def unsubscribed(self, ended: EndedSubscription) -> None:
        self._add(self._subscriptions, ended)

    def disconnected(self, ended: EndedSession) -> None:
        self._add(self._sessions, ended)

    def _add(self, batches: _Batches[T], ended: T) -> None:
        if len(batches.waiting) >= WAITING_MAX:
            batches.waiting.popleft()
            self._events.emit(LimitHit("ended_waiting_max", ""))
        batches.waiting.append(ended)
        if self._timer is None and not self._is_telling:
            self._timer = self._timers.after(BATCH_DELAY_S, self._start)

    def flush(self) -> None:
        """Tells the policy without a delay, because the node stops."""
        if self._timer is not None:
            self._timer.cancel()
            self._start()

    def _start(self) -> None:
        self._timer = None
        self._is_telling = True
        self._background.start(self._run())

    async def _run(self) -> None:
        try:
            while self._subscriptions.waiting or self._sessions.waiting:
                await self._tell(self._subscriptions)
                await self._tell(self._sessions)
        finally:
            self._is_telling = False

    async def _tell(self, batches: _Batches[T]) -> None:
        if not batches.waiting:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await batches.tell(batches.take())
        except (Exception, asyncio.CancelledError) as error:  # reported; the next batch must be told all the same
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                raise
            report_error(self._events, batches.name, error)
