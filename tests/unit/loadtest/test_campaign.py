"""The course of a load test, with workers that only pretend to be some."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from beaconfire.loadtest.campaign import Campaign, Course
from beaconfire.loadtest.codes import Kind
from beaconfire.loadtest.histogram import Histogram
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
    Order,
    Running,
    Trouble,
)
from beaconfire.loadtest.plan import Plan
from beaconfire.loadtest.report import Report, Run

PLAN = Plan(url="ws://h/c", connections=4, workers=2)


class PretendedFleet:
    """Two workers with two connections each, before a server that holds `limit` messages per second.

    Beyond that it cuts everybody off. The load side itself is the bottleneck from `load_limit` on.
    """

    def __init__(self, limit: float, load_limit: float = float("inf")) -> None:
        self.size = 2
        self.orders: list[Order] = []
        self.now_ns = 0
        self._limit = limit
        self._load_limit = load_limit
        self._notes: deque[tuple[int, Note]] = deque()
        self._rate = 0.0

    def tell(self, order: Order) -> None:
        self.orders.append(order)
        match order:
            case Open():
                self._say(Opened((2,), Histogram().counts(), ()))
            case Go():
                self._rate = order.rate
                self.now_ns = order.start_ns
                alive = 2 if order.rate <= self._limit else 0
                self._say(Running(sent=5, expected=20, arrived=20 if alive else 3, alive=alive, done=bool(alive)))
            case Finish():
                self._say(self._finished())
            case Close():
                self._say(Closed())

    def _finished(self) -> Finished:
        held = self._rate <= self._limit
        return Finished(
            sent=round(self._rate / 2),
            expected=20,
            arrived=20 if held else 3,
            duplicated=0,
            reordered=0,
            latency_ns=Histogram().counts(),
            late_ns=Histogram().counts(),
            last_ns=self.now_ns + 1,
            cpu=0.5 if self._rate < self._load_limit else 0.95,
            troubles=() if held else (Trouble(Kind.DISCONNECT, 3008, "slow", 2),),
        )

    def _say(self, note: Note) -> None:
        self._notes.extend((worker, note) for worker in range(self.size))

    async def hear(self) -> tuple[int, Note]:
        return self._notes.popleft()


class Silent:
    """A watcher that only remembers the steps."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, bool]] = []

    def connecting(self, opened: int, wanted: int) -> None: ...

    def running(self, phase: str, passed_s: float, duration_s: float, sent: int, delivered: int) -> None: ...

    def step(self, run: Run, failure: str) -> None:
        self.steps.append((run.rate, not failure))


def run(fleet: PretendedFleet, course: Course, watcher: Silent, *, interrupted: bool = False) -> Report:
    campaign = Campaign(PLAN, course, fleet, watcher, lambda: fleet.now_ns)  # type: ignore[arg-type]  # a pretended one
    if interrupted:
        campaign.interrupt()
    return asyncio.run(campaign.run())


def test_a_single_run() -> None:
    """Connect, warm up, measure; members of all workers are added up; the warm-up is no part of the figures."""
    fleet = PretendedFleet(limit=1000)
    report = run(fleet, Course(rate=100, duration_s=1, warm_up_s=1), Silent())
    assert [type(order) for order in fleet.orders] == [Open, Go, Finish, Go, Finish]
    assert [order.members for order in fleet.orders if isinstance(order, Go)] == [(4,), (4,)]
    assert report.failure == ""
    assert report.run is not None
    assert (report.run.sent, report.run.delivered) == (100, 40)


def test_who_is_cut_off_while_warming_up_counts() -> None:
    """The figures would be those of fewer connections, so it is a failure."""
    report = run(PretendedFleet(limit=50), Course(rate=100, duration_s=1, warm_up_s=1), Silent())
    assert report.failure == "8 connections were cut off"


def test_a_search() -> None:
    """Doubling, then halving; everybody comes anew after each failure; the report is of the best step."""
    fleet, watcher = PretendedFleet(limit=330), Silent()
    report = run(fleet, Course(rate=100, duration_s=1, search=True, p99_max_ms=100), watcher)
    assert watcher.steps[:4] == [(100, True), (200, True), (400, False), (300, True)]
    assert report.highest_rate is not None
    assert 310 <= report.highest_rate <= 330
    assert report.run is not None
    assert report.run.rate == report.highest_rate
    assert report.failure == ""
    failures = sum(not held for _, held in watcher.steps)
    assert failures - 1 <= sum(isinstance(order, Close) for order in fleet.orders) <= failures


def test_a_search_that_finds_nothing() -> None:
    """Says why, by its last step."""
    report = run(PretendedFleet(limit=0), Course(rate=100, duration_s=1, search=True), Silent())
    assert report.highest_rate == 0
    assert "cut off" in report.failure


def test_a_search_ends_where_the_load_side_does() -> None:
    """What holds, holds, however busy the load side is. What does not is tried twice, and ends it without a failure."""
    fleet = PretendedFleet(limit=500, load_limit=200)
    report = run(fleet, Course(rate=100, duration_s=1, search=True), Silent())
    assert [order.rate for order in fleet.orders if isinstance(order, Go)] == [100, 200, 400, 800, 800]
    assert report.highest_rate == 400
    assert "of a core" in report.bottleneck
    assert report.failure == ""


@pytest.mark.parametrize("search", [False, True])
def test_interrupted_while_connecting(search: bool) -> None:
    """Nothing is published any more, and workers have been told to stop opening."""
    fleet = PretendedFleet(limit=1000)
    report = run(fleet, Course(rate=100, duration_s=1, warm_up_s=1, search=search), Silent(), interrupted=True)
    assert [type(order) for order in fleet.orders] == [Halt, Open, Halt]
    assert report.interrupted
    assert report.run is None
