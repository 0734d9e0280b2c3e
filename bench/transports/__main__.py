"""`python -m bench.transports`: measures the transports and writes the page."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from bench.peers import PEERS
from bench.processes import ROOT
from bench.report import formatting
from bench.report.about import Machine
from bench.transports.measurement import COUNT, SECONDS, TransportResults, measure
from bench.transports.subscribers import SUBSCRIBERS

RATES = (0.0, 1.0, 20.0)

_PAGE = Path(__file__).with_name("page.md")

_HEADS = {
    0.0: ("Without messages", "bytes per subscriber and second", "server CPU per subscriber and second"),
    1.0: ("One message per second", "bytes per message", "server CPU per message"),
    20.0: ("Twenty messages per second", "bytes per message", "server CPU per message"),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.transports", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "transports.md")
    arguments = parser.parse_args()
    found: dict[float, dict[str, TransportResults]] = {rate: {} for rate in RATES}
    for name, make in SUBSCRIBERS.items():
        for rate in RATES:
            with PEERS["beaconfire"].start() as running:
                found[rate][name] = asyncio.run(measure(running, make, rate))
            print(f"{name}: {found[rate][name]}", file=sys.stderr)
    machine = Machine.here("python -m bench.transports")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        _PAGE.read_text().format(
            command=machine.command,
            cpu=machine.cpu,
            cores=machine.cores,
            kernel=machine.kernel,
            python=machine.python,
            date=machine.date,
            subscribers=COUNT,
            seconds=SECONDS,
            tables="\n".join(_table(rate, results) for rate, results in found.items()),
        )
    )


def _table(rate: float, results: dict[str, TransportResults]) -> str:
    title, size, cost = _HEADS[rate]
    latency = "" if not rate else "latency p50 | p99 | "
    lines = [f"## {title}\n", f"| | {latency}{size} | {cost} |", f"|---|{'---|---|' if rate else ''}---|---|"]
    for name, row in results.items():
        delays = (
            [formatting.quantity("p50_us", row.p50_s * 1e6), formatting.quantity("p99_us", row.p99_s * 1e6)]
            if rate
            else []
        )
        cells = [name, *delays, f"{row.bytes:,.0f}", formatting.quantity("cpu_us", row.cpu_us)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
