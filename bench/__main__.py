"""`make bench`: the quick benchmark. Prints medians of interleaved rounds, and ratios, which are what counts."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from bench import fanout, memory

GOALS = {1: "CPU per delivery at most 1.4 x the C loop", 64: "at least 8 x the C loop's deliveries per second"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--connections", type=int, default=5000)
    arguments = parser.parse_args()
    console = Console()
    table = Table(title=f"Fan-out to {arguments.subscribers} subscribers, medians of {arguments.rounds} rounds")
    for column in (
        "in flight",
        "C loop µs",
        "ours µs",
        "ratio",
        "C loop /s",
        "ours /s",
        "ratio",
    ):
        table.add_column(column, justify="right")
    for window, loop, ours in fanout.measure(arguments.subscribers, {1: 300, 64: 1500}, arguments.rounds):
        (loop_cpu, loop_rate), (cpu, rate) = loop.medians(), ours.medians()
        cpu_ratio, rate_ratio = fanout.ratios(loop, ours)
        table.add_row(
            str(window),
            f"{loop_cpu:.2f}",
            f"{cpu:.2f}",
            f"{cpu_ratio:.2f}",
            f"{loop_rate:,.0f}",
            f"{rate:,.0f}",
            f"{rate_ratio:.1f}",
        )
        console.print(f"{window} in flight done; the goal: {GOALS[window]}")
    console.print(table)
    weight = memory.measure(arguments.connections, 100)
    console.print(f"idle, authenticated, subscribed: {weight / 1024:.1f} KiB resident per connection (goal: 12 KB)")


if __name__ == "__main__":
    main()
