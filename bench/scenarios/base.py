"""What scenarios share: how much effort a run takes, what is measured, and floods that fit any peer's pace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from msgspec import Struct

from bench.load import MARK, Load
from bench.load.client import Outcome
from bench.peers.base import Dialect, Peer, Running
from bench.samples import Value

DATA_BYTES = 64
"""What a message carries, its mark included."""

LONG = 4
"""A measurement that takes so many times longer than it should is not repeated."""

DATA = MARK.decode() + "x" * (DATA_BYTES - len(MARK))

SLOW_S = 10.0
"""A peer that needs longer for a measurement is spared the later rounds of it."""

TOO_SLOW_S = 60.0
"""A peer that would need longer is not measured."""

Variant = dict[str, Value]
Metrics = dict[str, float]
Measured = Iterator[tuple[Variant, Metrics]]


class Effort(Struct, frozen=True):
    """How thorough a run is. `seconds` is what one measurement should take."""

    quick: bool = False
    rounds: int = 3
    seconds: float = 1.0


class TooSlowError(Exception):
    """The peer would need minutes for this. Says how many seconds."""


class Subject(NamedTuple):
    """A peer that runs, and the round it is in."""

    peer: Peer
    running: Running
    round: int

    @property
    def text(self) -> Dialect:
        """Its dialect that is text: JSON, if it knows that."""
        return next(iter(self.peer.dialects.values()))


class Scenario(Protocol):
    """One kind of work. A peer runs only for it, started anew in every round."""

    @property
    def name(self) -> str:
        """As in samples and in `bench.report.catalogue`."""

    def suits(self, peer: Peer) -> bool:
        """Whether the peer can do this work at all."""

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        """One sample after the other. Raises LoadError where the peer fails; what came before counts."""


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
    """A closed loop for about `effort.seconds`, after one or two to warm up and to find the pace.

    If the first one took several times that, it is the measurement: warming up is lost in it. Costs and rates are
    those of messages, or of deliveries. Raises TooSlowError.
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
    """As many as fit into these seconds at the pace of the outcome; at least as many as before."""
    return max(count, int(count * seconds / max(outcome.seconds, 1e-6)))


def metrics(outcome: Outcome, cpu_s: float, operations: int) -> Metrics:
    """What every measurement says: cost and rate of an operation, how busy both sides were, and latencies if known."""
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


def counted(work: Callable[[int], Outcome], least: int, seconds: float) -> int:
    """How often something must be done to take so many seconds; found by doing it `least` times, twice."""
    work(least)
    return _scaled(least, work(least), seconds)
