"""The runner: rounds are interleaved, a failure does not affect other peers, and samples are written at once."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from bench import samples
from bench.load import LoadError
from bench.peers import PEERS
from bench.peers.base import Peer, PeerProtocol, Running
from bench.run import BenchmarkRun
from bench.scenarios import all_scenarios
from bench.scenarios.base import Effort, Measured, Scenario, Subject, TooSlowError

EFFORT = Effort(quick=True, rounds=3, seconds=0.02)


class FakePeer:
    """A peer without a server."""

    capabilities = frozenset({"fanout"})
    protocols: Mapping[str, PeerProtocol] = {}
    configuration = ""

    def __init__(self, name: str, broken: bool = False) -> None:
        self.name = self.title = name
        self._broken = broken

    def install(self) -> None:
        if self._broken:
            raise RuntimeError("no compiler")

    @contextmanager
    def _run(self) -> Iterator[Running]:
        yield cast(Running, None)

    def start(self) -> Any:
        return self._run()


class RecordingScenario:
    """A scenario that records which peers are measured, and fails for some."""

    name = "recording"

    def __init__(self, failures: dict[str, Exception] | None = None) -> None:
        self.log: list[tuple[int, str]] = []
        self._failures = failures or {}

    def supports(self, peer: Peer) -> bool:
        return peer.name != "unsupported"

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        self.log.append((subject.round, subject.peer.name))
        yield {"part": 1}, {"cpu_us": 1.0}
        if subject.peer.name in self._failures:
            raise self._failures[subject.peer.name]
        yield {"part": 2}, {"cpu_us": 2.0}


def perform(tmp_path: Path, scenario: Scenario, *peers: Peer, effort: Effort = EFFORT) -> tuple[list[Any], str]:
    """All samples, and the printed text."""
    printed = io.StringIO()
    file = tmp_path / "samples.jsonl"
    run = BenchmarkRun(peers, effort, file, Console(file=printed, width=200))
    run.install()
    run.perform([scenario])
    return samples.read(file), printed.getvalue()


def test_every_peer_runs_a_round_before_the_next(tmp_path: Path) -> None:
    """Peers that the scenario does not support are not measured."""
    scenario = RecordingScenario()
    measured, _ = perform(tmp_path, scenario, FakePeer("a"), FakePeer("unsupported"), FakePeer("b"))
    assert scenario.log == [(0, "a"), (0, "b"), (1, "a"), (1, "b"), (2, "a"), (2, "b")]
    assert [(sample.round, sample.peer, sample.variant["part"]) for sample in measured] == [
        (number, peer, part) for number, peer in scenario.log for part in (1, 2)
    ]


def test_a_failing_peer_does_not_affect_others(tmp_path: Path) -> None:
    """Its earlier samples count, the reason is printed, and the peer is measured again in the next round."""
    scenario = RecordingScenario({"a": LoadError("connection 7 was closed: 3008")})
    measured, printed = perform(tmp_path, scenario, FakePeer("a"), FakePeer("b"))
    assert printed.count("a failed: connection 7 was closed: 3008") == 3
    assert [sample.peer for sample in measured] == ["a", "b", "b"] * 3


def test_a_peer_that_is_too_slow_is_skipped_in_later_rounds(tmp_path: Path) -> None:
    """Later rounds would take as long."""
    scenario = RecordingScenario({"a": TooSlowError("90 s for a single measurement")})
    _, printed = perform(tmp_path, scenario, FakePeer("a"), FakePeer("b"))
    assert printed.count("a failed: 90 s") == 1
    assert [name for _, name in scenario.log] == ["a", "b", "b", "b"]


def test_a_peer_that_cannot_be_installed_is_left_out(tmp_path: Path) -> None:
    """The reason is printed."""
    scenario = RecordingScenario()
    _, printed = perform(tmp_path, scenario, FakePeer("a", broken=True), FakePeer("b"))
    assert "a is left out: no compiler" in printed
    assert {name for _, name in scenario.log} == {"b"}


@pytest.mark.parametrize(
    ("scenario", "peers", "variants"),
    [
        ("fanout", ("beaconfire", "c-loop"), 4),
        ("rooms", ("beaconfire",), 1),
        ("one_to_one", ("beaconfire", "beaconfire-2-workers"), 2),
        ("api", ("beaconfire", "beaconfire-2-workers"), 4),
        ("connect", ("beaconfire", "beaconfire-2-workers"), 2),
        ("recover", ("beaconfire",), 2),
        ("growth_history", ("beaconfire",), 3),
    ],
)
def test_real_scenarios_measure_real_servers(
    tmp_path: Path, scenario: str, peers: tuple[str, ...], variants: int
) -> None:
    """Every variant has a sample, and every sample has a cost and a rate above zero."""
    effort = Effort(quick=True, rounds=1, seconds=0.02)
    measured, printed = perform(tmp_path, all_scenarios()[scenario], *(PEERS[name] for name in peers), effort=effort)
    assert "failed:" not in printed
    assert len(measured) == variants
    assert all(sample.metrics["cpu_us"] > 0 and sample.metrics["per_second"] > 0 for sample in measured)


def test_ceiling_compares_with_the_c_loop(tmp_path: Path) -> None:
    """The C loop runs at the same time, and the ratio is plausible."""
    effort = Effort(quick=True, rounds=1, seconds=0.02)
    (sample,), _ = perform(tmp_path, all_scenarios()["ceiling"], PEERS["beaconfire"], effort=effort)
    assert 0.5 < sample.metrics["times_c_loop"] < 50
