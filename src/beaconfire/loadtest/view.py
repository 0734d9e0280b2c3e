"""A report as a person reads it on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from beaconfire.loadtest.report import Mishap, Report, Run, Times


def view(report: Report) -> Group:
    """Figures, then troubles, then what to make of them."""
    parts: list[RenderableType] = [_figures(report)]
    if report.steps:
        parts += [Text(), _steps(report.steps)]
    troubles = report.troubles + (report.run.troubles if report.run else ())
    if troubles:
        parts += [Text(), _troubles(troubles)]
    return Group(*parts, Text(), *verdict(report))


def verdict(report: Report) -> Iterable[Text]:
    """One sentence each for the limit, for what failed, and for the load side."""
    if report.interrupted:
        yield Text("interrupted: these are the figures so far", "bold yellow")
    if report.highest_rate:
        yield Text(f"the highest rate that held: {report.highest_rate:g} messages per second", "bold green")
    if report.failure:
        yield Text(f"failed: {report.failure}", "bold red")
    elif not report.interrupted and report.highest_rate is None:
        yield Text("everything arrived, once and in order", "bold green")
    if report.bottleneck:
        where = "Beyond that rate" if report.highest_rate else "So"
        yield Text(
            f"the load side was the bottleneck: {report.bottleneck}. {where} these figures are not the server's: "
            "give --processes more, or run the load on another machine.",
            "bold yellow",
        )


def summary(run: Run, failure: str) -> Text:
    """One step of a search, in a line."""
    figures = f"{run.rate:>9g}/s  {run.deliveries_per_second:>10,.0f} deliveries/s  p99 {run.latency.p99_ms:>8g} ms  "
    if failure and run.load_side.bottleneck:
        return Text(figures).append(f"load side: {run.load_side.bottleneck}", "yellow")
    return Text(figures).append(failure or "held", "red" if failure else "green")


def _figures(report: Report) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("connections", f"{report.connecting.opened} of {report.connecting.wanted}, {report.protocol}")
    meeting = f"{report.channels} rooms, each connection in one" if report.rooms else f"{report.channels}, each in all"
    table.add_row("channels", meeting)
    table.add_row("connect", _times(report.connecting.time))
    run = report.run
    if run is None:
        return table
    table.add_row("rate", f"{run.rate:g} messages/s of {report.payload_bytes} bytes for {run.duration_s:g} s")
    table.add_row("messages", f"{run.sent:,} sent" + (f", {run.unsent:,} could not be" if run.unsent else ""))
    table.add_row(
        "deliveries",
        f"{run.delivered:,} of {run.expected:,}: {run.missing:,} missing, "
        f"{run.reordered:,} reordered, {run.duplicated:,} duplicated",
    )
    table.add_row("per second", f"{run.deliveries_per_second:,.0f} deliveries")
    table.add_row("latency", _times(run.latency))
    cpu = ", ".join(f"{share:.0%}" for share in run.load_side.cpu)
    table.add_row("load side", f"CPU {cpu}; messages late by {run.load_side.late_p99_ms:g} ms (p99)")
    return table


def _times(times: Times) -> str:
    return (
        f"p50 {times.p50_ms:g}  p90 {times.p90_ms:g}  p99 {times.p99_ms:g}  "
        f"p99.9 {times.p999_ms:g}  max {times.max_ms:g} ms"
    )


def _steps(steps: Iterable[Run]) -> Table:
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


def _troubles(troubles: Iterable[Mishap]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("times", justify="right")
    for heading in ("what", "code", "reason", "meaning"):
        table.add_column(heading)
    for trouble in troubles:
        code = str(trouble.code) if trouble.code else "–"
        table.add_row(str(trouble.count), trouble.kind.value, code, Text(trouble.reason), trouble.meaning)
    return table
