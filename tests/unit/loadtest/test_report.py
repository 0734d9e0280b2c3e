"""The results of all workers are added up, and a failure is found."""

from __future__ import annotations

import io

import pytest
from msgspec.structs import replace
from rich.console import Console

from beaconfire.loadtest.failures import Failure, FailureKind
from beaconfire.loadtest.histogram import Histogram, HistogramCounts
from beaconfire.loadtest.plan import Plan
from beaconfire.loadtest.report import Report, Run, build_report, build_run, find_failure
from beaconfire.loadtest.view import render_report
from beaconfire.loadtest.worker_messages import ConnectionsOpened, RunFinished

PLAN = Plan(url="ws://h/c", connections=4, workers=2)
SECOND_NS = 1_000_000_000


def counts(*milliseconds: float) -> HistogramCounts:
    histogram = Histogram()
    for each in milliseconds:
        histogram.record(int(each * 1e6))
    return histogram.counts()


PART = RunFinished(
    sent=5,
    expected=20,
    delivered=20,
    duplicated=0,
    reordered=0,
    latency_ns=counts(*[4.0] * 20),
    late_ns=counts(0.1),
    last_ns=2 * SECOND_NS,
    cpu=0.3,
    failures=(),
)


def run_with(**changes: object) -> Run:
    """Two workers, one of them with these changes; one second at 10 messages per second."""
    return build_run([PART, replace(PART, **changes)], rate=10, duration_s=1, start_ns=SECOND_NS, interrupted=False)


def report_with(*, subscribers: int = 2, **changes: object) -> Report:
    opened = [ConnectionsOpened((subscribers,), counts(10), ()), ConnectionsOpened((2,), counts(20), ())]
    return replace(build_report(PLAN, opened), run=run_with(**changes))


def test_workers_are_added_up() -> None:
    """Counts are sums, percentiles are those of all deliveries, and the delivery rate is the average until the last
    delivery."""
    run = run_with()
    assert (run.sent, run.expected, run.delivered, run.missing, run.unsent) == (10, 40, 40, 0, 0)
    assert run.latency.p50_ms == pytest.approx(4, rel=0.01)
    assert run.deliveries_per_second == 40
    assert run_with(last_ns=3 * SECOND_NS).deliveries_per_second == 20
    assert find_failure(report_with(), None) == ""


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"subscribers": 1}, "1 of 4 connections could not be opened"),
        ({"delivered": 17}, "3 deliveries are missing"),
        ({"sent": 4}, "1 messages could not be sent"),
        ({"reordered": 2}, "2 deliveries were out of order"),
        ({"duplicated": 1}, "1 were duplicates"),
        (
            {"failures": (Failure(FailureKind.DISCONNECT, 3008, "slow", 2),), "delivered": 0},
            "2 connections were disconnected",
        ),
        ({"failures": (Failure(FailureKind.ERROR, 103, "permission denied", 7),)}, "the server refused 7 commands"),
    ],
)
def test_each_failure_has_a_sentence(changes: dict[str, object], text: str) -> None:
    """The first cause is reported first."""
    assert text in find_failure(report_with(**changes), None)  # type: ignore[arg-type]  # one of them is `subscribers`


def test_latency_is_a_failure_only_with_a_limit() -> None:
    """The sentence names the limit."""
    assert find_failure(report_with(), 5) == ""
    assert "more than --p99 3 ms" in find_failure(report_with(), 3)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, ""),
        ({"cpu": 0.95}, "95% of a core"),
        ({"late_ns": counts(*[3.0] * 99)}, "after they were due"),
        ({"late_ns": counts(*[3.0] * 99), "latency_ns": counts(*[500.0] * 99)}, ""),
        ({"late_ns": counts(*[0.9] * 99), "latency_ns": counts(*[1.0] * 99)}, ""),
    ],
)
def test_bottleneck_on_the_load_side(changes: dict[str, object], text: str) -> None:
    """A busy process, or messages sent so late that this is most of their latency."""
    reason = run_with(**changes).load_side.bottleneck
    assert text in reason
    assert bool(text) == bool(reason)


def test_rendered_report() -> None:
    """Codes are explained, and the conclusions are sentences."""
    report = report_with(failures=(Failure(FailureKind.DISCONNECT, 3008, "slow", 2),))
    report = replace(report, failure=find_failure(report, None), bottleneck="it was busy")
    console = Console(width=200, file=io.StringIO())
    with console.capture() as printed:
        console.print(render_report(report))
    text = printed.get()
    assert "3008" in text
    assert "more slowly" in text
    assert "failed: 2 connections were disconnected" in text
    assert "the load side was the bottleneck: it was busy" in text
