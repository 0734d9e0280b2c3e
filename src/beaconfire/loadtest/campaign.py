"""The course of a load test: connect, warm up, measure, or search. Runs in the process that the user started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from beaconfire.loadtest.fleet import Fleet
from beaconfire.loadtest.orders import (
    Close,
    Closed,
    Finish,
    Finished,
    Go,
    Halt,
    Note,
    Open,
    Opened,
    Opening,
    Running,
)
from beaconfire.loadtest.plan import Plan
from beaconfire.loadtest.report import Report, Run, failure_of, report_of, run_of
from beaconfire.loadtest.search import Search

GRACE_S: Final = 5.0
"""How long after the last message was due its deliveries may take."""

_HALT_GRACE_S: Final = 1.0
_LEAD_S: Final = 0.2
"""From the order to the first message, so that it has reached every worker."""

N = TypeVar("N", bound=Note)


class Course(Struct, frozen=True):
    """How the test goes. `p99_max_ms` is None if any latency will do; a search needs one."""

    rate: float
    duration_s: float
    warm_up_s: float = 0.0
    p99_max_ms: float | None = None
    search: bool = False


class Watcher(Protocol):
    """Is told how it goes."""

    def connecting(self, opened: int, wanted: int) -> None: ...
    def running(self, phase: str, passed_s: float, duration_s: float, sent: int, delivered: int) -> None: ...
    def step(self, run: Run, failure: str) -> None:
        """A search has tried a rate; `failure` is empty if it held."""


class Campaign:
    """One load test. `interrupt` may be called at any time: what was measured so far is then reported."""

    def __init__(self, plan: Plan, course: Course, fleet: Fleet, watcher: Watcher, now_ns: Callable[[], int]) -> None:
        self._plan = plan
        self._course = course
        self._fleet = fleet
        self._watcher = watcher
        self._now_ns = now_ns
        self._members: tuple[int, ...] = ()
        self._halted_ns: int | None = None

    def _interrupted(self) -> bool:
        """A method, for it may change with every await."""
        return self._halted_ns is not None

    def interrupt(self) -> None:
        self._halted_ns = self._now_ns()
        self._fleet.tell(Halt())

    async def run(self) -> Report:
        """Raises FleetError if the load side fails."""
        course = self._course
        report = await self._open()
        if report.connecting.opened and not self._interrupted():
            if course.warm_up_s:
                # What is lost here is no part of the figures, but those who are cut off are missed in them.
                warm_up = await self._measure("warming up", course.rate, course.warm_up_s)
                report = replace(report, troubles=report.troubles + warm_up.troubles)
            if not self._interrupted():
                report = await (self._search(report) if course.search else self._single(report))
        return replace(report, interrupted=self._interrupted())

    async def _single(self, report: Report) -> Report:
        run = await self._measure("measuring", self._course.rate, self._course.duration_s)
        report = replace(report, run=run, bottleneck=run.load_side.bottleneck)
        return replace(report, failure=failure_of(report, self._course.p99_max_ms))

    async def _search(self, report: Report) -> Report:
        """`run` becomes the one that held at the highest rate, or else the last."""
        search, best = Search(self._course.rate), None
        steps: list[Run] = []
        failure = bottleneck = ""
        while (rate := search.rate) is not None and not self._interrupted():
            run, failure = await self._step(report, rate)
            steps.append(run)
            if self._interrupted():
                break
            self._watcher.step(run, failure)
            search.record(held=not failure)
            if not failure:
                best = run  # however busy the load side was: without it, it would only have been better
            elif bottleneck := run.load_side.bottleneck:
                break  # from here on the load side would be measured
            elif search.rate is not None:
                report = await self._start_afresh()
        return replace(
            report,
            run=best or steps[-1],
            highest_rate=search.held,
            steps=tuple(steps),
            failure="" if best or bottleneck else failure,
            bottleneck=bottleneck,
        )

    async def _step(self, report: Report, rate: float) -> tuple[Run, str]:
        """One rate, and why it did not hold, if it did not. If that may be the load side's fault, once more."""
        phase, failure = f"{rate:g}/s", ""
        for _ in range(2):
            run = await self._measure(phase, rate, self._course.duration_s)
            failure = failure_of(replace(report, run=run), self._course.p99_max_ms)
            if not failure or not run.load_side.bottleneck or self._interrupted():
                break
            report = await self._start_afresh()
            phase = f"{rate:g}/s again"
        return run, failure

    async def _start_afresh(self) -> Report:
        """New connections: what still waits for the old ones would spoil the next step."""
        self._fleet.tell(Close())
        await self._collect(Closed)
        return await self._open()

    # --- one phase each ---

    async def _open(self) -> Report:
        progress: dict[int, Opening] = {}

        def note_opening(worker: int, note: Note) -> None:
            if isinstance(note, Opening):
                progress[worker] = note
                self._watcher.connecting(sum(each.opened for each in progress.values()), self._plan.connections)

        self._fleet.tell(Open())
        if self._interrupted():  # meanwhile
            self._fleet.tell(Halt())
        opened = await self._collect(Opened, note_opening)
        self._members = tuple(map(sum, zip(*(part.members for part in opened), strict=True)))
        report = report_of(self._plan, opened)
        return replace(report, failure=failure_of(report, None))

    async def _measure(self, phase: str, rate: float, duration_s: float) -> Run:
        start_ns = self._now_ns() + int(_LEAD_S * 1e9)
        self._fleet.tell(Go(start_ns, rate, duration_s, self._members))
        states = [Running() for _ in range(self._fleet.size)]
        while not self._is_over(states, start_ns, duration_s):
            worker, note = await self._fleet.hear()
            if isinstance(note, Running):
                states[worker] = note
                passed_s = max(0.0, (self._now_ns() - start_ns) / 1e9)
                sent, arrived = (sum(getattr(state, name) for state in states) for name in ("sent", "arrived"))
                self._watcher.running(phase, min(passed_s, duration_s), duration_s, sent, arrived)
        self._fleet.tell(Finish())
        parts = await self._collect(Finished)
        return run_of(parts, rate=rate, duration_s=duration_s, start_ns=start_ns, halted=self._interrupted())

    def _is_over(self, states: Sequence[Running], start_ns: int, duration_s: float) -> bool:
        if not any(state.alive for state in states):
            return True
        if not all(state.done for state in states):
            return False
        if sum(state.arrived for state in states) >= sum(state.expected for state in states):
            return True
        if self._halted_ns is not None:
            return self._now_ns() > self._halted_ns + _HALT_GRACE_S * 1e9
        return self._now_ns() > start_ns + (duration_s + GRACE_S) * 1e9

    async def _collect(self, kind: type[N], others: Callable[[int, Note], None] = lambda *_: None) -> list[N]:
        """One note of this kind from every worker, in their order; what else they say goes to `others`."""
        found: dict[int, N] = {}
        while len(found) < self._fleet.size:
            worker, note = await self._fleet.hear()
            if isinstance(note, kind):
                found[worker] = note
            else:
                others(worker, note)
        return [found[worker] for worker in sorted(found)]
