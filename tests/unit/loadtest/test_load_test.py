"""The phases of a load test, with simulated workers."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from beaconfire.loadtest.failures import Failure, FailureKind
from beaconfire.loadtest.histogram import Histogram
from beaconfire.loadtest.load_test import LoadProfile, LoadTest
from beaconfire.loadtest.plan import Plan
from beaconfire.loadtest.report import Report, Run
from beaconfire.loadtest.worker_messages import (
    CloseConnections,
    ConnectionsClosed,
    ConnectionsOpened,
    FinishRun,
    OpenConnections,
    RunFinished,
    RunProgress,
    StartRun,
    Stop,
    WorkerCommand,
    WorkerUpdate,
)

PLAN = Plan(url="ws://h/c", connections=4, workers=2)


class SimulatedWorkers:
    """Two workers with two connections each, and a server that sustains `limit` messages per second.

    Above this rate the server disconnects all clients. The load side is the bottleneck from `load_limit` on.
    """

    def __init__(self, limit: float, load_limit: float = float("inf")) -> None:
        self.count = 2
        self.commands: list[WorkerCommand] = []
        self.now_ns = 0
        self._limit = limit
        self._load_limit = load_limit
        self._updates: deque[tuple[int, WorkerUpdate]] = deque()
        self._rate = 0.0

    def send(self, command: WorkerCommand) -> None:
        self.commands.append(command)
        match command:
            case OpenConnections():
                self._update(ConnectionsOpened((2,), Histogram().counts(), ()))
            case StartRun():
                self._rate = command.rate
                self.now_ns = command.start_ns
                up = command.rate <= self._limit
                self._update(
                    RunProgress(
                        sent=5, expected=20, delivered=20 if up else 3, open_connections=2 if up else 0, done=up
                    )
                )
            case FinishRun():
                self._update(self._finished())
            case CloseConnections():
                self._update(ConnectionsClosed())

    def _finished(self) -> RunFinished:
        sustained = self._rate <= self._limit
        return RunFinished(
            sent=round(self._rate / 2),
            expected=20,
            delivered=20 if sustained else 3,
            duplicated=0,
            reordered=0,
            latency_ns=Histogram().counts(),
            late_ns=Histogram().counts(),
            last_ns=self.now_ns + 1,
            cpu=0.5 if self._rate < self._load_limit else 0.95,
            failures=() if sustained else (Failure(FailureKind.DISCONNECT, 3008, "slow", 2),),
        )

    def _update(self, update: WorkerUpdate) -> None:
        self._updates.extend((worker, update) for worker in range(self.count))

    async def receive(self) -> tuple[int, WorkerUpdate]:
        return self._updates.popleft()


class StepRecorder:
    """A progress listener that records the steps of a search."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, bool]] = []

    def connecting(self, opened: int, wanted: int) -> None: ...

    def running(self, phase: str, elapsed_s: float, duration_s: float, sent: int, delivered: int) -> None: ...

    def step_finished(self, run: Run, failure: str) -> None:
        self.steps.append((run.rate, not failure))


def run(
    workers: SimulatedWorkers, profile: LoadProfile, recorder: StepRecorder, *, interrupted: bool = False
) -> Report:
    load_test = LoadTest(PLAN, profile, workers, recorder, lambda: workers.now_ns)  # type: ignore[arg-type]  # simulated
    if interrupted:
        load_test.interrupt()
    return asyncio.run(load_test.run())


def test_single_run() -> None:
    """Connects, warms up, measures. Subscribers of all workers are added up. The warm-up is not in the results."""
    workers = SimulatedWorkers(limit=1000)
    report = run(workers, LoadProfile(rate=100, duration_s=1, warm_up_s=1), StepRecorder())
    assert [type(command) for command in workers.commands] == [
        OpenConnections,
        StartRun,
        FinishRun,
        StartRun,
        FinishRun,
    ]
    assert [command.subscribers for command in workers.commands if isinstance(command, StartRun)] == [(4,), (4,)]
    assert report.failure == ""
    assert report.run is not None
    assert (report.run.sent, report.run.delivered) == (100, 40)


def test_disconnects_during_warm_up_are_a_failure() -> None:
    """The results would be those of fewer connections."""
    report = run(SimulatedWorkers(limit=50), LoadProfile(rate=100, duration_s=1, warm_up_s=1), StepRecorder())
    assert report.failure == "8 connections were disconnected"


def test_search() -> None:
    """Doubles, then bisects; reconnects after each failed step; reports the run with the highest sustained rate."""
    workers, recorder = SimulatedWorkers(limit=330), StepRecorder()
    report = run(workers, LoadProfile(rate=100, duration_s=1, search=True, p99_max_ms=100), recorder)
    assert recorder.steps[:4] == [(100, True), (200, True), (400, False), (300, True)]
    assert report.highest_rate is not None
    assert 310 <= report.highest_rate <= 330
    assert report.run is not None
    assert report.run.rate == report.highest_rate
    assert report.failure == ""
    failed = sum(not sustained for _, sustained in recorder.steps)
    assert failed - 1 <= sum(isinstance(command, CloseConnections) for command in workers.commands) <= failed


def test_search_without_a_sustained_rate() -> None:
    """The report has the failure of the last step."""
    report = run(SimulatedWorkers(limit=0), LoadProfile(rate=100, duration_s=1, search=True), StepRecorder())
    assert report.highest_rate == 0
    assert "disconnected" in report.failure


def test_search_ends_when_the_load_side_is_the_bottleneck() -> None:
    """A sustained rate counts even if the load side is busy. A failed rate is tried twice and ends the search without
    a failure."""
    workers = SimulatedWorkers(limit=500, load_limit=200)
    report = run(workers, LoadProfile(rate=100, duration_s=1, search=True), StepRecorder())
    rates = [command.rate for command in workers.commands if isinstance(command, StartRun)]
    assert rates == [100, 200, 400, 800, 800]
    assert report.highest_rate == 400
    assert "of a core" in report.bottleneck
    assert report.failure == ""


@pytest.mark.parametrize("search", [False, True])
def test_interrupt_while_connecting(search: bool) -> None:
    """No run is started, and the workers stop opening connections."""
    workers = SimulatedWorkers(limit=1000)
    profile = LoadProfile(rate=100, duration_s=1, warm_up_s=1, search=search)
    report = run(workers, profile, StepRecorder(), interrupted=True)
    assert [type(command) for command in workers.commands] == [Stop, OpenConnections, Stop]
    assert report.interrupted
    assert report.run is None
