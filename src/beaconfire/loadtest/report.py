"""What a load test found: figures, and what to make of them. These structs are what `--json` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from beaconfire.loadtest.codes import Kind, meaning
from beaconfire.loadtest.histogram import Counts, Histogram
from beaconfire.loadtest.orders import Finished, Opened, Trouble
from beaconfire.loadtest.plan import Plan
from beaconfire.loadtest.schedule import message_count

CPU_MAX: Final = 0.9
"""CPU time per time of one load process from which on it may be what is slow."""

_LATE_MIN_NS: Final = 1_000_000


class Times(Struct, frozen=True):
    """Percentiles, milliseconds. All are 0 if nothing was measured."""

    p50_ms: float = 0
    p90_ms: float = 0
    p99_ms: float = 0
    p999_ms: float = 0
    max_ms: float = 0


class Mishap(Struct, frozen=True):
    """A trouble with what it means."""

    kind: Kind
    code: int
    reason: str
    meaning: str
    count: int


class Connecting(Struct, frozen=True):
    """`time` is from dialling to the last subscription."""

    wanted: int
    opened: int
    time: Times


class LoadSide(Struct, frozen=True):
    """`cpu` of each process, CPU time per time. `bottleneck` says why it was one, and is empty if it was not."""

    cpu: tuple[float, ...]
    late_p99_ms: float
    bottleneck: str


class Run(Struct, frozen=True):
    """One rate, held for a while. `rate`, `sent` and `unsent` are messages, the rest deliveries."""

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
    latency: Times
    load_side: LoadSide
    troubles: tuple[Mishap, ...]


class Report(Struct, frozen=True, kw_only=True):
    """All of it. `run` is None if it never came to that. `highest_rate` is what a search found, 0 if nothing held.

    `failure` says in a sentence what went wrong, and is empty if nothing did. `bottleneck` says why the load side was
    what was measured, or what ended the search.
    """

    url: str
    protocol: str
    connections: int
    channels: int
    rooms: bool
    payload_bytes: int
    processes: int
    connecting: Connecting
    troubles: tuple[Mishap, ...]
    run: Run | None = None
    highest_rate: float | None = None
    steps: tuple[Run, ...] = ()
    failure: str = ""
    bottleneck: str = ""
    interrupted: bool = False


def times(counts: Iterable[Counts]) -> Times:
    histogram = Histogram(counts)
    p50, p90, p99, p999 = (round(histogram.quantile_ns(share) / 1e6, 3) for share in (0.5, 0.9, 0.99, 0.999))
    return Times(p50, p90, p99, p999, round(histogram.max_ns / 1e6, 3))


def mishaps(troubles: Iterable[Trouble]) -> tuple[Mishap, ...]:
    """The same from several workers in one, the most frequent first."""
    counts: Counter[tuple[Kind, int, str]] = Counter()
    for trouble in troubles:
        counts[trouble.kind, trouble.code, trouble.reason] += trouble.count
    return tuple(
        Mishap(kind, code, reason, meaning(kind, code), count) for (kind, code, reason), count in counts.most_common()
    )


def run_of(parts: Sequence[Finished], *, rate: float, duration_s: float, start_ns: int, halted: bool) -> Run:
    """What all workers have counted of one run; `halted` ones may leave messages unsent."""
    sent, expected, delivered = (sum(getattr(part, name) for part in parts) for name in ("sent", "expected", "arrived"))
    latency = times(part.latency_ns for part in parts)
    passed_s = (max(part.last_ns for part in parts) - start_ns) / 1e9
    return Run(
        rate=rate,
        duration_s=duration_s,
        sent=sent,
        unsent=0 if halted else message_count(rate, duration_s) - sent,
        expected=expected,
        delivered=delivered,
        missing=max(0, expected - delivered),
        reordered=sum(part.reordered for part in parts),
        duplicated=sum(part.duplicated for part in parts),
        deliveries_per_second=round(delivered / max(passed_s, 0.0 if halted else duration_s), 1) if delivered else 0.0,
        latency=latency,
        load_side=_load_side(parts, latency),
        troubles=mishaps(trouble for part in parts for trouble in part.troubles),
    )


def _load_side(parts: Sequence[Finished], latency: Times) -> LoadSide:
    cpu = tuple(round(part.cpu, 3) for part in parts)
    late_ns = Histogram(part.late_ns for part in parts).quantile_ns(0.99)
    late_ms = round(late_ns / 1e6, 3)
    reason = ""
    if max(cpu) >= CPU_MAX:
        reason = f"a load process used {max(cpu):.0%} of a core"
    elif late_ns > _LATE_MIN_NS and late_ms > latency.p99_ms / 2:
        # Latency counts from when a message was due, so what left late has its own lateness in it.
        reason = f"messages left up to {late_ms:g} ms (p99) after they were due"
    return LoadSide(cpu, late_ms, reason)


def report_of(plan: Plan, opened: Sequence[Opened]) -> Report:
    """Of the connections alone; what comes later is put in with `msgspec.structs.replace`."""
    times_in = sum(sum(part.members) for part in opened)
    return Report(
        url=plan.shown_url,
        protocol="protobuf" if plan.protobuf else "json",
        connections=plan.connections,
        channels=plan.channels,
        rooms=plan.rooms,
        payload_bytes=plan.payload_bytes,
        processes=plan.workers,
        connecting=Connecting(
            wanted=plan.connections,
            opened=times_in if plan.rooms else times_in // plan.channels,
            time=times(part.connect_ns for part in opened),
        ),
        troubles=mishaps(trouble for part in opened for trouble in part.troubles),
    )


def failure_of(report: Report, p99_max_ms: float | None) -> str:
    """The first thing that went wrong, in a sentence; empty if nothing did."""
    run, connecting = report.run, report.connecting
    if connecting.opened < connecting.wanted:
        return f"{connecting.wanted - connecting.opened} of {connecting.wanted} connections did not get in"
    if run is None:
        return "nothing was measured"
    troubles = report.troubles + run.troubles
    if gone := sum(trouble.count for trouble in troubles if trouble.kind is Kind.DISCONNECT):
        return f"{gone} connections were cut off"
    if run.missing:
        return f"{run.missing} deliveries are missing"
    if troubles:
        return f"the server refused {sum(trouble.count for trouble in troubles)} commands or ended subscriptions"
    if run.unsent:
        return f"{run.unsent} messages could not be sent"
    if run.reordered or run.duplicated:
        return f"{run.reordered} deliveries were out of order, {run.duplicated} came twice"
    if p99_max_ms is not None and run.latency.p99_ms > p99_max_ms:
        return f"p99 is {run.latency.p99_ms:g} ms, more than --p99 {p99_max_ms:g} ms"
    return ""
