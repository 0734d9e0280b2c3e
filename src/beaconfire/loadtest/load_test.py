"""The phases of a load test: connect, warm up, then measure or search. Runs in the process that the user started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from beaconfire.loadtest.plan import Plan
from beaconfire.loadtest.report import Report, Run, build_report, build_run, find_failure
from beaconfire.loadtest.search import RateSearch
from beaconfire.loadtest.worker_messages import (
    CloseConnections,
    ConnectionsClosed,
    ConnectionsOpened,
    FinishRun,
    OpenConnections,
    OpenProgress,
    RunFinished,
    RunProgress,
    StartRun,
    Stop,
    WorkerUpdate,
)
from beaconfire.loadtest.worker_processes import WorkerProcesses

DELIVERY_TIMEOUT_S: Final = 5.0
"""How long to wait for missing deliveries after the last message was due."""

_DELIVERY_TIMEOUT_AFTER_STOP_S: Final = 1.0
_START_DELAY_S: Final = 0.2
"""From `StartRun` to the first message, so that the command has reached every worker."""

U = TypeVar("U", bound=WorkerUpdate)


class LoadProfile(Struct, frozen=True):
    """The load over time. `p99_max_ms` is None if any latency is accepted; a search needs a limit."""

    rate: float
    duration_s: float
    warm_up_s: float = 0.0
    p99_max_ms: float | None = None
    search: bool = False


class ProgressListener(Protocol):
    """Is called with the progress of a load test."""

    def connecting(self, opened: int, wanted: int) -> None: ...
    def running(self, phase: str, elapsed_s: float, duration_s: float, sent: int, delivered: int) -> None: ...
    def step_finished(self, run: Run, failure: str) -> None:
        """A search has tried a rate. `failure` is empty if the server sustained it."""


class LoadTest:
    """One load test. `interrupt` may be called at any time: `run` then reports the results so far."""

    def __init__(
        self,
        plan: Plan,
        profile: LoadProfile,
        workers: WorkerProcesses,
        listener: ProgressListener,
        now_ns: Callable[[], int],
    ) -> None:
        self._plan = plan
        self._profile = profile
        self._workers = workers
        self._listener = listener
        self._now_ns = now_ns
        self._subscribers: tuple[int, ...] = ()
        self._interrupted_ns: int | None = None

    def _interrupted(self) -> bool:
        """Whether `interrupt` was called.

        A method, because type checkers assume that an attribute does not change during an `await`.
        """
        return self._interrupted_ns is not None

    def interrupt(self) -> None:
        self._interrupted_ns = self._now_ns()
        self._workers.send(Stop())

    async def run(self) -> Report:
        """Raises WorkerError if a worker fails."""
        profile = self._profile
        report = await self._open()
        if report.connecting.opened and not self._interrupted():
            if profile.warm_up_s:
                # Missing deliveries of the warm-up don't count, but its failures do: with fewer connections, the
                # results of the measurement would mean something else.
                warm_up = await self._measure("warming up", profile.rate, profile.warm_up_s)
                report = replace(report, failures=report.failures + warm_up.failures)
            if not self._interrupted():
                report = await (self._search(report) if profile.search else self._single_run(report))
        return replace(report, interrupted=self._interrupted())

    async def _single_run(self, report: Report) -> Report:
        run = await self._measure("measuring", self._profile.rate, self._profile.duration_s)
        report = replace(report, run=run, bottleneck=run.load_side.bottleneck)
        return replace(report, failure=find_failure(report, self._profile.p99_max_ms))

    async def _search(self, report: Report) -> Report:
        """`Report.run` becomes the run with the highest sustained rate; if there is none, the last run."""
        search, best = RateSearch(self._profile.rate), None
        steps: list[Run] = []
        failure = bottleneck = ""
        while (rate := search.rate) is not None and not self._interrupted():
            run, failure = await self._try_rate(report, rate)
            steps.append(run)
            if self._interrupted():
                break
            self._listener.step_finished(run, failure)
            search.record(sustained=not failure)
            if not failure:
                best = run  # a busy load side does not matter here: it can only make the results worse
            elif bottleneck := run.load_side.bottleneck:
                break  # higher rates would measure the load side
            elif search.rate is not None:
                report = await self._reconnect()
        return replace(
            report,
            run=best or steps[-1],
            highest_rate=search.highest,
            steps=tuple(steps),
            failure="" if best or bottleneck else failure,
            bottleneck=bottleneck,
        )

    async def _try_rate(self, report: Report, rate: float) -> tuple[Run, str]:
        """A run at this rate, and why it failed (empty if it did not).

        The run is repeated once if the load side may be the cause of its failure.
        """
        phase, failure = f"{rate:g}/s", ""
        for _ in range(2):
            run = await self._measure(phase, rate, self._profile.duration_s)
            failure = find_failure(replace(report, run=run), self._profile.p99_max_ms)
            if not failure or not run.load_side.bottleneck or self._interrupted():
                break
            report = await self._reconnect()
            phase = f"{rate:g}/s again"
        return run, failure

    async def _reconnect(self) -> Report:
        """Opens new connections: messages that still wait for the old ones would distort the next step."""
        self._workers.send(CloseConnections())
        await self._collect(ConnectionsClosed)
        return await self._open()

    # --- one phase each ---

    async def _open(self) -> Report:
        progress: dict[int, OpenProgress] = {}

        def on_progress(worker: int, update: WorkerUpdate) -> None:
            if isinstance(update, OpenProgress):
                progress[worker] = update
                self._listener.connecting(sum(each.opened for each in progress.values()), self._plan.connections)

        self._workers.send(OpenConnections())
        if self._interrupted():  # before the workers had anything to stop
            self._workers.send(Stop())
        opened = await self._collect(ConnectionsOpened, on_progress)
        self._subscribers = tuple(map(sum, zip(*(part.subscribers for part in opened), strict=True)))
        report = build_report(self._plan, opened)
        return replace(report, failure=find_failure(report, None))

    async def _measure(self, phase: str, rate: float, duration_s: float) -> Run:
        start_ns = self._now_ns() + int(_START_DELAY_S * 1e9)
        self._workers.send(StartRun(start_ns, rate, duration_s, self._subscribers))
        states = [RunProgress() for _ in range(self._workers.count)]
        while not self._is_over(states, start_ns, duration_s):
            worker, update = await self._workers.receive()
            if isinstance(update, RunProgress):
                states[worker] = update
                elapsed_s = max(0.0, (self._now_ns() - start_ns) / 1e9)
                sent, delivered = (sum(getattr(state, name) for state in states) for name in ("sent", "delivered"))
                self._listener.running(phase, min(elapsed_s, duration_s), duration_s, sent, delivered)
        self._workers.send(FinishRun())
        parts = await self._collect(RunFinished)
        return build_run(parts, rate=rate, duration_s=duration_s, start_ns=start_ns, interrupted=self._interrupted())

    def _is_over(self, states: Sequence[RunProgress], start_ns: int, duration_s: float) -> bool:
        if not any(state.open_connections for state in states):
            return True
        if not all(state.done for state in states):
            return False
        if sum(state.delivered for state in states) >= sum(state.expected for state in states):
            return True
        if self._interrupted_ns is not None:
            return self._now_ns() > self._interrupted_ns + _DELIVERY_TIMEOUT_AFTER_STOP_S * 1e9
        return self._now_ns() > start_ns + (duration_s + DELIVERY_TIMEOUT_S) * 1e9

    async def _collect(self, kind: type[U], on_other: Callable[[int, WorkerUpdate], None] = lambda *_: None) -> list[U]:
        """Waits until every worker has sent one update of the type `kind`. Returns them in the order of workers.

        Other updates go to `on_other`. Raises WorkerError if a worker fails.
        """
        found: dict[int, U] = {}
        while len(found) < self._workers.count:
            worker, update = await self._workers.receive()
            if isinstance(update, kind):
                found[worker] = update
            else:
                on_other(worker, update)
        return [found[worker] for worker in sorted(found)]
