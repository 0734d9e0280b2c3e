"""The results of a load test, added up over all workers, and their assessment. `--json` prints these structs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from beaconfire.loadtest.failures import Failure, FailureKind, find_meaning
from beaconfire.loadtest.histogram import Histogram, HistogramCounts
from beaconfire.loadtest.plan import Plan
from beaconfire.loadtest.schedule import message_count
from beaconfire.loadtest.worker_messages import ConnectionsOpened, RunFinished

CPU_MAX: Final = 0.9
"""CPU time per elapsed time of one load process. From this value on, the load process may be the bottleneck."""

_LATE_MIN_NS: Final = 1_000_000


class Percentiles(Struct, frozen=True):
    """Of durations, in milliseconds. All are 0 if nothing was measured."""

    p50_ms: float = 0
    p90_ms: float = 0
    p99_ms: float = 0
    p999_ms: float = 0
    max_ms: float = 0


class ExplainedFailure(Struct, frozen=True):
    """A failure with the meaning of its code."""

    kind: FailureKind
    code: int
    reason: str
    meaning: str
    count: int


class Connecting(Struct, frozen=True):
    """`time` is from the start of the TCP connection to the reply to the last subscription."""

    wanted: int
    opened: int
    time: Percentiles


class LoadSide(Struct, frozen=True):
    """The load processes. `cpu` of each is CPU time per elapsed time. `bottleneck` says why the load side was the
    bottleneck; empty if it was not."""

    cpu: tuple[float, ...]
    late_p99_ms: float
    bottleneck: str


class Run(Struct, frozen=True):
    """The results at one rate. `rate`, `sent` and `unsent` count messages, the other numbers count deliveries."""

    rate: float
    duration_s: float
    sent: int
    unsent: int
    expected: int
    delivered: int
    missing: int
    reordered: int
    duplicated: int
    deliveries_per_second: float
    latency: Percentiles
    load_side: LoadSide
    failures: tuple[ExplainedFailure, ...]


class Report(Struct, frozen=True, kw_only=True):
    """The whole report. `run` is None if no run took place. `highest_rate` is the result of a search: the highest
    sustained rate, or 0 if there is none.

    `failure` is the first thing that went wrong, as a sentence; empty if nothing did. `bottleneck` says why the
    results describe the load side, or why it ended the search; empty if it did not.
    """

    url: str
    protocol: str
    connections: int
    channels: int
    rooms: bool
    payload_bytes: int
    processes: int
    connecting: Connecting
    failures: tuple[ExplainedFailure, ...]
    run: Run | None = None
    highest_rate: float | None = None
    steps: tuple[Run, ...] = ()
    failure: str = ""
    bottleneck: str = ""
    interrupted: bool = False


def compute_percentiles(counts: Iterable[HistogramCounts]) -> Percentiles:
    histogram = Histogram(counts)
    p50, p90, p99, p999 = (round(histogram.quantile_ns(share) / 1e6, 3) for share in (0.5, 0.9, 0.99, 0.999))
    return Percentiles(p50, p90, p99, p999, round(histogram.max_ns / 1e6, 3))


def explain_failures(failures: Iterable[Failure]) -> tuple[ExplainedFailure, ...]:
    """Adds up equal failures of several workers; the most frequent failure comes first."""
    counts: Counter[tuple[FailureKind, int, str]] = Counter()
    for failure in failures:
        counts[failure.kind, failure.code, failure.reason] += failure.count
    return tuple(
        ExplainedFailure(kind, code, reason, find_meaning(kind, code), count)
        for (kind, code, reason), count in counts.most_common()
    )


def build_run(parts: Sequence[RunFinished], *, rate: float, duration_s: float, start_ns: int, interrupted: bool) -> Run:
    """Adds up the results of all workers. An interrupted run has no unsent messages."""
    sent, expected, delivered = (
        sum(getattr(part, name) for part in parts) for name in ("sent", "expected", "delivered")
    )
    latency = compute_percentiles(part.latency_ns for part in parts)
    elapsed_s = (max(part.last_ns for part in parts) - start_ns) / 1e9
    measured_s = max(elapsed_s, 0.0 if interrupted else duration_s)
    return Run(
        rate=rate,
        duration_s=duration_s,
        sent=sent,
        unsent=0 if interrupted else message_count(rate, duration_s) - sent,
        expected=expected,
        delivered=delivered,
        missing=max(0, expected - delivered),
        reordered=sum(part.reordered for part in parts),
        duplicated=sum(part.duplicated for part in parts),
        deliveries_per_second=round(delivered / measured_s, 1) if delivered else 0.0,
        latency=latency,
        load_side=_assess_load_side(parts, latency),
        failures=explain_failures(failure for part in parts for failure in part.failures),
    )


def _assess_load_side(parts: Sequence[RunFinished], latency: Percentiles) -> LoadSide:
    cpu = tuple(round(part.cpu, 3) for part in parts)
    late_ns = Histogram(part.late_ns for part in parts).quantile_ns(0.99)
    late_ms = round(late_ns / 1e6, 3)
    reason = ""
    if max(cpu) >= CPU_MAX:
        reason = f"a load process used {max(cpu):.0%} of a core"
    elif late_ns > _LATE_MIN_NS and late_ms > latency.p99_ms / 2:
        # Latency counts from when a message was due, so it includes the time by which the message was sent late.
        reason = f"messages were sent up to {late_ms:g} ms (p99) after they were due"
    return LoadSide(cpu, late_ms, reason)


def build_report(plan: Plan, opened: Sequence[ConnectionsOpened]) -> Report:
    """A report about the connections. The results of runs are added later with `msgspec.structs.replace`."""
    subscriptions = sum(sum(part.subscribers) for part in opened)
    return Report(
        url=plan.public_url,
        protocol="protobuf" if plan.protobuf else "json",
        connections=plan.connections,
        channels=plan.channels,
        rooms=plan.rooms,
        payload_bytes=plan.payload_bytes,
        processes=plan.workers,
        connecting=Connecting(
            wanted=plan.connections,
            opened=subscriptions if plan.rooms else subscriptions // plan.channels,
            time=compute_percentiles(part.connect_ns for part in opened),
        ),
        failures=explain_failures(failure for part in opened for failure in part.failures),
    )


def find_failure(report: Report, p99_max_ms: float | None) -> str:
    """The first thing that went wrong, as a sentence; empty if nothing did."""
    run, connecting = report.run, report.connecting
    if connecting.opened < connecting.wanted:
        return f"{connecting.wanted - connecting.opened} of {connecting.wanted} connections could not be opened"
    if run is None:
        return "nothing was measured"
    failures = report.failures + run.failures
    if ended := sum(failure.count for failure in failures if failure.kind is FailureKind.DISCONNECT):
        return f"{ended} connections were disconnected"
    if run.missing:
        return f"{run.missing} deliveries are missing"
    if failures:
        return f"the server refused {sum(failure.count for failure in failures)} commands or ended subscriptions"
    if run.unsent:
        return f"{run.unsent} messages could not be sent"
    if run.reordered or run.duplicated:
        return f"{run.reordered} deliveries were out of order, {run.duplicated} were duplicates"
    if p99_max_ms is not None and run.latency.p99_ms > p99_max_ms:
        return f"the p99 of the latency is {run.latency.p99_ms:g} ms, more than --p99 {p99_max_ms:g} ms"
    return ""
