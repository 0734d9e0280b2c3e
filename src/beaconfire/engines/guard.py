"""Gives each call of an engine a deadline, and turns every failure into a typed error.

Every engine that suspends runs behind a guard. So the node never waits for an engine without a limit, an engine's
defect is one failed command, and readiness and metrics show each engine in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from math import inf
from typing import Any, Final, TypeVar

from msgspec import Raw

from beaconfire.base.deadlines import Deadlines
from beaconfire.base.errors import CommandError, EngineUnavailable, NotReplicated, StorageFull
from beaconfire.base.timers import Timers
from beaconfire.base.units import Seconds
from beaconfire.engines.health import EngineHealth
from beaconfire.engines.interceptor import (
    EngineCall,
    InterceptedBroker,
    InterceptedControlBus,
    InterceptedEngine,
    InterceptedMigration,
    InterceptedPresence,
)
from beaconfire.engines.port import (
    BrokerEvents,
    Engine,
    EngineState,
    HistoryOptions,
    HistoryPage,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.model.events import EngineCallFailed, EventSink, report_error
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo

T = TypeVar("T")

REPORT_INTERVAL_S: Final = 60.0
"""How often the unexpected exceptions of one call are reported at most. All are counted."""


class CallGuard:
    """Implements `CallInterceptor`. Each call must run in a task, because the deadline cancels the task's wait.

    A call raises CommandError or one of its subclasses; for anything else it raises `EngineUnavailable`. Only a
    cancellation by the caller passes unchanged, and is counted neither as an answer nor as a failure.
    """

    def __init__(self, engine: Engine, timeout_s: float, timers: Timers, events: EventSink) -> None:
        self.health = EngineHealth(engine, timers, events, self._start_ping)
        self._engine = engine
        self._timeout_s = timeout_s
        self._deadlines = Deadlines(timeout_s, timers)
        self._timers = timers
        self._events = events
        self._ping: asyncio.Task[None] | None = None
        self._reported_s: dict[EngineCall, float] = {}

    async def call(
        self, name: EngineCall, running: Coroutine[Any, Any, T], *arguments: object, waits_s: float = 0.0
    ) -> T:
        """See `CallInterceptor.call`."""
        deadline = self._deadlines.start(waits_s)
        answers = self.health.answers
        try:
            result = await running
        except CommandError as error:
            deadline.finish()
            self._on_error(name, error, answers)
            raise
        except (Exception, asyncio.CancelledError) as error:
            if deadline.finish():
                problem = f"no answer within {Seconds(self._timeout_s + waits_s)}"
                raise self._failed(name, "timeout", problem, answers) from error
            if isinstance(error, TimeoutError):
                raise self._failed(name, "timeout", "the engine waited too long", answers) from error
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            raise self._defect(name, error, answers) from error
        except BaseException:
            deadline.finish()  # The process or the coroutine ends.
            raise
        deadline.finish()
        self.health.answered()
        return result

    def _on_error(self, name: EngineCall, error: CommandError, answers: int) -> None:
        match error:
            case EngineUnavailable():
                self._count(name, "unavailable")
                self.health.failed(error.detail, answers)
                return
            case NotReplicated():
                self._count(name, "not_replicated")
            case StorageFull():
                self._count(name, "storage_full")
        self.health.answered()

    def _defect(self, name: EngineCall, error: BaseException, answers: int) -> EngineUnavailable:
        now_s = self._timers.clock.now_s()
        if now_s - self._reported_s.get(name, -inf) >= REPORT_INTERVAL_S:
            self._reported_s[name] = now_s
            report_error(self._events, f"engine {name}", error)
        return self._failed(name, "defect", f"{type(error).__name__}, see internal_error in the log", answers)

    def _failed(self, name: EngineCall, reason: str, problem: str, answers: int) -> EngineUnavailable:
        self._count(name, reason)
        self.health.failed(f"{name}: {problem}", answers)
        return EngineUnavailable(
            f"{name}: engine {self._engine.name!r}: {problem}. Whether the call took effect is not known; try again. "
            "If this lasts, check the engine and engine.timeout"
        )

    def _count(self, name: EngineCall, reason: str) -> None:
        self._events.emit(EngineCallFailed(name, reason))

    # The ping of an engine that is down

    def _start_ping(self) -> None:
        """Starts a ping. One that still waits ends, because its question or the answer may be lost."""
        if self._ping is not None:
            self._ping.cancel()
        self._ping = asyncio.get_running_loop().create_task(self._run_ping())

    async def _run_ping(self) -> None:
        try:
            await self.call("ping", self._engine.broker.ping())
        except CommandError:
            pass  # The failure is counted.

    def stop(self) -> None:
        """Ends the checks and the ping. Idempotent."""
        self.health.stop()
        if self._ping is not None:
            self._ping.cancel()
            self._ping = None


def _is_cancelled() -> bool:
    """Whether somebody has cancelled the current task. If not, the engine itself has raised CancelledError."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


class GuardedBroker(InterceptedBroker):
    """The checks of the engine's health run while the broker is started.

    Calls that never suspend (see `Engine.immediate`) need no deadline, and no task. They pass the guard.
    """

    def __init__(self, engine: Engine, guard: CallGuard) -> None:
        super().__init__(engine.broker, guard, engine.start_wait_s, engine.stop_wait_s)
        self._guard = guard
        self._immediate = engine.immediate

    def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Coroutine[Any, Any, PublishOutcome]:
        is_immediate = options.history.durability in self._immediate
        publish = self._inner.publish if is_immediate else super().publish
        return publish(channel, data, options, info, tags)

    def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> Coroutine[Any, Any, HistoryPage]:
        read = self._inner.history if options.durability in self._immediate else super().history
        return read(channel, options, limit, since, reverse)

    async def start(self, events: BrokerEvents) -> None:
        await super().start(events)
        self._guard.health.start()

    async def stop(self) -> None:
        """A failure is counted and not raised: the node ends in any case."""
        self._guard.stop()
        try:
            await super().stop()
        except CommandError:
            pass


class GuardedControlBus(InterceptedControlBus):
    """See `GuardedBroker.stop`."""

    async def stop(self) -> None:
        try:
            await super().stop()
        except CommandError:
            pass


class GuardedEngine(InterceptedEngine, frozen=True, kw_only=True):
    """An engine behind a guard. The state is that of `health`."""

    health: EngineHealth

    def state(self) -> EngineState:
        """See `Engine.state`. The engine is also down after several failed calls in a row."""
        return self.health.state()


def guard_engine(engine: Engine, timeout_s: float, timers: Timers, events: EventSink) -> GuardedEngine:
    """Returns the engine behind a guard.

    `timeout_s` is the deadline of each call; a survey, `start` and `stop` have their own time in addition. `timers` may
    be coarse. `events` gets `EngineCallFailed` for each failure, `EngineStateChanged` for each change of the state, and
    `InternalError` for an unexpected exception, but for each call only once in `REPORT_INTERVAL_S`.
    """
    guard = CallGuard(engine, timeout_s, timers, events)
    return GuardedEngine(
        engine.name,
        GuardedBroker(engine, guard),
        InterceptedPresence(engine.presence, guard),
        GuardedControlBus(engine.control, guard),
        durabilities=engine.durabilities,
        immediate=engine.immediate,
        keeps_order=engine.keeps_order,
        single_node=engine.single_node,
        start_wait_s=engine.start_wait_s,
        stop_wait_s=engine.stop_wait_s,
        migration=InterceptedMigration(engine.migration, guard),
        inner=engine,
        health=guard.health,
    )
