"""Figures of all workers in one, and the verdict."""

from __future__ import annotations

import io

import pytest
from msgspec.structs import replace
from rich.console import Console

from beaconfire.loadtest.codes import Kind
from beaconfire.loadtest.histogram import Counts, Histogram
from beaconfire.loadtest.orders import Finished, Opened, Trouble
from beaconfire.loadtest.plan import Plan
from beaconfire.loadtest.report import Report, Run, failure_of, report_of, run_of
from beaconfire.loadtest.view import view

PLAN = Plan(url="ws://h/c", connections=4, workers=2)
SECOND_NS = 1_000_000_000


def counts(*milliseconds: float) -> Counts:
    histogram = Histogram()
    for each in milliseconds:
        histogram.record(int(each * 1e6))
    return histogram.counts()


PART = Finished(
    sent=5,
    expected=20,
    arrived=20,
    duplicated=0,
    reordered=0,
    latency_ns=counts(*[4.0] * 20),
    late_ns=counts(0.1),
    last_ns=2 * SECOND_NS,
    cpu=0.3,
    troubles=(),
)


def run_with(**changes: object) -> Run:
    """Two workers, one of them with these changes; one second at 10 messages per second."""
    return run_of([PART, replace(PART, **changes)], rate=10, duration_s=1, start_ns=SECOND_NS, halted=False)


def report_with(*, members: int = 2, **changes: object) -> Report:
    opened = [Opened((members,), counts(10), ()), Opened((2,), counts(20), ())]
    return replace(report_of(PLAN, opened), run=run_with(**changes))


def test_sums() -> None:
    """Counts add up, percentiles are those of all, and deliveries per second are over the time they took."""
    run = run_with()
    assert (run.sent, run.expected, run.delivered, run.missing, run.unsent) == (10, 40, 40, 0, 0)
    assert run.latency.p50_ms == pytest.approx(4, rel=0.01)
    assert run.deliveries_per_second == 40
    assert run_with(last_ns=3 * SECOND_NS).deliveries_per_second == 20
    assert failure_of(report_with(), None) == ""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"members": 1}, "1 of 4 connections did not get in"),
        ({"arrived": 17}, "3 deliveries are missing"),
        ({"sent": 4}, "1 messages could not be sent"),
        ({"reordered": 2}, "2 deliveries were out of order"),
        ({"duplicated": 1}, "1 came twice"),
        ({"troubles": (Trouble(Kind.DISCONNECT, 3008, "slow", 2),), "arrived": 0}, "2 connections were cut off"),
        ({"troubles": (Trouble(Kind.ERROR, 103, "permission denied", 7),)}, "the server refused 7 commands"),
    ],
)
def test_failures(changes: dict[str, object], says: str) -> None:
    """Each has its sentence, and the first cause comes first."""
    assert says in failure_of(report_with(**changes), None)  # type: ignore[arg-type]  # members is among them


def test_latency_fails_only_if_asked() -> None:
    """With a bound, which is part of the sentence."""
    assert failure_of(report_with(), 5) == ""
    assert "more than --p99 3 ms" in failure_of(report_with(), 3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""),
        ({"cpu": 0.95}, "95% of a core"),
        ({"late_ns": counts(*[3.0] * 99)}, "after they were due"),
        ({"late_ns": counts(*[3.0] * 99), "latency_ns": counts(*[500.0] * 99)}, ""),
        ({"late_ns": counts(*[0.9] * 99), "latency_ns": counts(*[1.0] * 99)}, ""),
    ],
)
def test_the_load_side(changes: dict[str, object], says: str) -> None:
    """A busy process, or messages so late that it is most of their latency; a slow server hides what is late."""
    reason = run_with(**changes).load_side.bottleneck
    assert says in reason
    assert bool(says) == bool(reason)


def test_the_view_says_it_plainly() -> None:
    """Codes come with their meaning, and the verdict is a sentence."""
    report = report_with(troubles=(Trouble(Kind.DISCONNECT, 3008, "slow", 2),))
    report = replace(report, failure=failure_of(report, None), bottleneck="it was busy")
    console = Console(width=200, file=io.StringIO())
    with console.capture() as printed:
        console.print(view(report))
    text = printed.get()
    assert "3008" in text
    assert "The client reads more slowly than data for it is published." in text
    assert "failed: 2 connections were cut off" in text
    assert "the load side was the bottleneck: it was busy" in text
