"""`python -m bench`: measures Beaconfire and its peers on this machine, and writes the report.

The peers are installed first; the first time this may take some minutes. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench import samples
from bench.goals import GOALS, judge
from bench.peers import PEERS
from bench.peers.base import Peer
from bench.processes import CACHE, ROOT
from bench.report import About, write
from bench.report.about import Machine, PeerFacts
from bench.report.contents import read_explanations
from bench.run import BenchmarkRun
from bench.scenarios import all_scenarios
from bench.scenarios.base import Effort

DOCS = ROOT / "docs" / "benchmarks"
QUICK = CACHE / "quick"
QUICK_PEERS = ("beaconfire", "beaconfire-2-workers", "go-gorilla", "python-socketio", "c-loop")
QUICK_SCENARIOS = ("fanout", "ceiling", "rooms", "one_to_one", "api", "connect", "memory")


def main() -> None:
    arguments = _parse()
    console = Console()
    out: Path = arguments.out or (QUICK if arguments.quick else DOCS)
    effort = Effort(quick=True, seconds=0.25) if arguments.quick else Effort()
    if arguments.rounds:
        effort = Effort(quick=effort.quick, rounds=arguments.rounds, seconds=effort.seconds)
    file = out / "samples.jsonl"
    scenarios = all_scenarios()
    file.unlink(missing_ok=True)
    run = BenchmarkRun([PEERS[name] for name in arguments.peer], effort, file, console)
    run.install()
    run.perform([scenarios[name] for name in arguments.scenario])
    about = _about(run.peers)
    about.write(out / "about.json")
    measured = samples.read(file)
    write(measured, out, about, read_explanations(out / "explanations.md"))
    for goal in GOALS:
        verdict = judge(goal, measured)
        if verdict.value is not None:
            console.print(
                f"{verdict.outcome:>7}  {verdict.value:12,.2f}  {goal.direction} {goal.threshold:g}  {goal.key}"
            )
    console.print(f"report: {out / 'index.html'}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer peers, scenarios and rounds: about three minutes")
    parser.add_argument("--peer", action="append", choices=PEERS, help="measure only this one; may be repeated")
    parser.add_argument(
        "--scenario", action="append", choices=all_scenarios(), help="measure only this one; may be repeated"
    )
    parser.add_argument("--rounds", type=int, help=f"number of rounds; {Effort().rounds} by default")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"folder for samples and report; docs/{DOCS.name} by default, except with --quick",
    )
    arguments = parser.parse_args()
    arguments.peer = arguments.peer or list(QUICK_PEERS if arguments.quick else PEERS)
    arguments.scenario = arguments.scenario or list(QUICK_SCENARIOS if arguments.quick else all_scenarios())
    return arguments


def _about(peers: Sequence[Peer]) -> About:
    facts = {
        peer.name: PeerFacts(title=peer.title, configuration=peer.configuration, capabilities=peer.capabilities)
        for peer in peers
    }
    command = shlex.join(["python", "-m", "bench", *sys.argv[1:]])
    return About(machine=Machine.here(command), peers=facts)


if __name__ == "__main__":
    main()
