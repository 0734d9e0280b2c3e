"""A report as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from beaconfire.loadtest.report import ExplainedFailure, Percentiles, Report, Run


def render_report(report: Report) -> Group:
    """The results, then the failures, then the conclusions."""
    parts: list[RenderableType] = [_results_table(report)]
    if report.steps:
        parts += [Text(), _steps_table(report.steps)]
    failures = report.failures + (report.run.failures if report.run else ())
    if failures:
        parts += [Text(), _failures_table(failures)]
    return Group(*parts, Text(), *conclusions(report))


def conclusions(report: Report) -> Iterable[Text]:
    """One line each for the highest rate, for what failed, and for the load side."""
    if report.interrupted:
        yield Text("interrupted: these are the results so far", "bold yellow")
    if report.highest_rate:
        yield Text(f"the highest sustained rate: {report.highest_rate:g} messages per second", "bold green")
    if report.failure:
        yield Text(f"failed: {report.failure}", "bold red")
    elif not report.interrupted and report.highest_rate is None:
        yield Text("all messages were delivered, once and in order", "bold green")
    if report.bottleneck:
        results = "Results for higher rates" if report.highest_rate else "These results"
        yield Text(
            f"the load side was the bottleneck: {report.bottleneck}. {results} describe the load side, not the server: "
            "use more --processes, or run the load test on another machine.",
            "bold yellow",
        )


def render_step(run: Run, failure: str) -> Text:
    """One step of a search, as one line."""
    results = f"{run.rate:>9g}/s  {run.deliveries_per_second:>10,.0f} deliveries/s  p99 {run.latency.p99_ms:>8g} ms  "
    if failure and run.load_side.bottleneck:
        return Text(results).append(f"load side: {run.load_side.bottleneck}", "yellow")
    return Text(results).append(failure or "sustained", "red" if failure else "green")


def _results_table(report: Report) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("connections", f"{report.connecting.opened} of {report.connecting.wanted}, {report.protocol}")
    subscriptions = "each connection in one of them" if report.rooms else "each connection in all of them"
    table.add_row("channels", f"{report.channels}, {subscriptions}")
    table.add_row("connect", _format_percentiles(report.connecting.time))
    run = report.run
    if run is None:
        return table
    table.add_row("rate", f"{run.rate:g} messages/s of {report.payload_bytes} bytes for {run.duration_s:g} s")
    table.add_row("messages", f"{run.sent:,} sent" + (f", {run.unsent:,} not sent" if run.unsent else ""))
    table.add_row(
        "deliveries",
        f"{run.delivered:,} of {run.expected:,}: {run.missing:,} missing, "
        f"{run.reordered:,} reordered, {run.duplicated:,} duplicated",
    )
    table.add_row("per second", f"{run.deliveries_per_second:,.0f} deliveries")
    table.add_row("latency", _format_percentiles(run.latency))
    cpu = ", ".join(f"{share:.0%}" for share in run.load_side.cpu)
    table.add_row("load side", f"CPU {cpu}; messages sent {run.load_side.late_p99_ms:g} ms late (p99)")
    return table


def _format_percentiles(times: Percentiles) -> str:
    return (
        f"p50 {times.p50_ms:g}  p90 {times.p90_ms:g}  p99 {times.p99_ms:g}  "
        f"p99.9 {times.p999_ms:g}  max {times.max_ms:g} ms"
    )


def _steps_table(steps: Iterable[Run]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("rate/s", "deliveries/s", "p50 ms", "p99 ms", "missing", "load CPU"):
        table.add_column(heading, justify="right")
    for run in steps:
        cpu = max(run.load_side.cpu)
        table.add_row(
            f"{run.rate:g}",
            f"{run.deliveries_per_second:,.0f}",
            f"{run.latency.p50_ms:g}",
            f"{run.latency.p99_ms:g}",
            f"{run.missing:,}",
            f"{cpu:.0%}",
        )
    return table


def _failures_table(failures: Iterable[ExplainedFailure]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("count", justify="right")
    for heading in ("failure", "code", "reason", "meaning"):
        table.add_column(heading)
    for failure in failures:
        code = str(failure.code) if failure.code else "–"
        table.add_row(str(failure.count), failure.kind.value, code, Text(failure.reason), failure.meaning)
    return table
