"""Shared by the scenarios: the length of a run, the metrics, and closed loops that adapt to the speed of the peer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from msgspec import Struct

from bench.load import MARK, Load
from bench.load.client import Outcome
from bench.peers.base import Peer, PeerProtocol, Running
from bench.samples import Value

DATA_BYTES = 64
"""The size of a message's data, including the mark."""

LONG = 4
"""A warm-up that takes this many times longer than planned is used as the measurement."""

DATA = MARK.decode() + "x" * (DATA_BYTES - len(MARK))

SLOW_S = 10.0
"""If a peer needs longer for a measurement, later rounds skip it."""

TOO_SLOW_S = 60.0
"""If a peer would need longer for a measurement, it is not measured."""

Variant = dict[str, Value]
Metrics = dict[str, float]
Measured = Iterator[tuple[Variant, Metrics]]


class Effort(Struct, frozen=True):
    """How thorough a run is. `seconds` is the planned duration of one measurement."""

    quick: bool = False
    rounds: int = 3
    seconds: float = 1.0


class TooSlowError(Exception):
    """The peer would need more than TOO_SLOW_S for a measurement. The text says how long."""


class Subject(NamedTuple):
    """A running peer and the number of the round."""

    peer: Peer
    running: Running
    round: int

    @property
    def text(self) -> PeerProtocol:
        """Its text protocol: JSON, if it has that."""
        return next(iter(self.peer.protocols.values()))


class Scenario(Protocol):
    """One kind of work. The peer is started for this scenario only, and again in every round."""

    @property
    def name(self) -> str:
        """Its name in samples and in `bench.report.catalogue`."""

    def supports(self, peer: Peer) -> bool:
        """Whether the peer can do this work."""

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        """Yields one sample after the other. Raises LoadError if the peer fails; earlier samples count."""


def flood(
    running: Running,
    load: Load,
    *,
    window: int,
    copies: int,
    effort: Effort,
    groups: int = 1,
    acks: bool = False,
    deliveries: bool = False,
) -> Metrics:
    """A closed loop for about `effort.seconds`, after one or two shorter ones that warm up and measure the speed.

    If the first loop took several times as long, it is the measurement: the effect of warming up is small then. Costs
    and rates are per message, or per delivery with `deliveries`. Raises TooSlowError.
    """
    least = window if window > 1 else 4
    before_s = running.cpu_s()
    outcome = load.flood(window, least, copies, acks)
    if outcome.seconds > LONG * effort.seconds:
        return metrics(outcome, running.cpu_s() - before_s, outcome.arrived if deliveries else outcome.sent)
    messages = least
    if outcome.seconds < effort.seconds:
        messages = _scaled(least, outcome, effort.seconds / 4)
        outcome = load.flood(window, messages, copies, acks)
    messages = max(_scaled(messages, outcome, effort.seconds), 2 * window)
    expected_s = messages * outcome.seconds / (outcome.sent / groups)
    if expected_s > TOO_SLOW_S:
        raise TooSlowError(f"{expected_s:.0f} s for a single measurement")
    before_s = running.cpu_s()
    outcome = load.flood(window, messages, copies, acks)
    cpu_s = running.cpu_s() - before_s
    return metrics(outcome, cpu_s, outcome.arrived if deliveries else outcome.sent)


def _scaled(count: int, outcome: Outcome, seconds: float) -> int:
    """The count that takes this many seconds at the speed of the outcome; at least `count`."""
    return max(count, int(count * seconds / max(outcome.seconds, 1e-6)))


def metrics(outcome: Outcome, cpu_s: float, operations: int) -> Metrics:
    """The metrics of a measurement: cost and rate per operation, how busy both sides were, and latencies if known."""
    measured = {
        "cpu_us": cpu_s / operations * 1e6,
        "per_second": operations / outcome.seconds,
        "server_busy": cpu_s / outcome.seconds,
        "load_busy": outcome.cpu_s / outcome.seconds,
    }
    latency = outcome.latency_us
    if latency.count:
        measured |= {
            "p50_us": latency.p50,
            "p99_us": latency.p99,
            "p999_us": latency.p999,
            "max_us": latency.max,
        }
    return measured


def find_count(work: Callable[[int], Outcome], least: int, seconds: float) -> int:
    """How many repetitions take this many seconds; found with two runs of `least` repetitions."""
    work(least)
    return _scaled(least, work(least), seconds)
