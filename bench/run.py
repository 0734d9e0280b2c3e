"""Runs scenarios for peers, round by round, and writes every sample to the file at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import samples
from bench.load import LoadError
from bench.peers.base import Peer
from bench.samples import Sample
from bench.scenarios.base import SLOW_S, Effort, Scenario, Subject, TooSlowError


class BenchmarkRun:
    """One benchmark. Rounds are interleaved: in a scenario, all peers run round n before any peer runs round n + 1."""

    def __init__(self, peers: Sequence[Peer], effort: Effort, file: Path, console: Console) -> None:
        self._peers = peers
        self._effort = effort
        self._file = file
        self._console = console
        self._skipped: set[tuple[str, str]] = set()
        """Scenario and peer of measurements that took too long: their later rounds are skipped."""

    def install(self) -> None:
        """Installs the peers. Peers that cannot be installed are left out, with a warning."""
        installed = []
        for peer in self._peers:
            try:
                peer.install()
                installed.append(peer)
            except (RuntimeError, OSError) as error:
                self._console.print(f"[yellow]{peer.name} is left out: {error}")
        self._peers = installed

    @property
    def peers(self) -> Sequence[Peer]:
        return self._peers

    def perform(self, scenarios: Sequence[Scenario]) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        plan = [(scenario, [peer for peer in self._peers if scenario.supports(peer)]) for scenario in scenarios]
        total = self._effort.rounds * sum(len(peers) for _, peers in plan)
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task("", total=total)
            for scenario, peers in plan:
                for number in range(self._effort.rounds):
                    for peer in peers:
                        progress.update(task, description=f"{scenario.name} {number + 1}: {peer.name}")
                        self._measure(scenario, peer, number)
                        progress.advance(task)

    def _measure(self, scenario: Scenario, peer: Peer, number: int) -> None:
        if (scenario.name, peer.name) in self._skipped:
            return
        started_s = time.monotonic()
        try:
            with peer.start() as running:
                for variant, metrics in scenario.measure(Subject(peer, running, number), self._effort):
                    sample = Sample(
                        scenario=scenario.name, peer=peer.name, variant=variant, round=number, metrics=metrics
                    )
                    samples.append(self._file, sample)
        except (LoadError, TooSlowError, RuntimeError) as error:
            self._console.print(f"[yellow]{scenario.name}, round {number + 1}: {peer.name} failed: {error}")
            if isinstance(error, TooSlowError):
                self._skipped.add((scenario.name, peer.name))
        if number >= 1 and time.monotonic() - started_s > SLOW_S * self._effort.rounds:
            self._skipped.add((scenario.name, peer.name))
