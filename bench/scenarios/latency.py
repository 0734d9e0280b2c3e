"""Latency at fixed rates, up to nine tenths of the rate that saturates Centrifugo."""

from __future__ import annotations

from bench.load import Load
from bench.peers import PEERS
from bench.peers.base import Peer
from bench.scenarios.base import Effort, Measured, Metrics, Subject, metrics
from bench.scenarios.messaging import CONNECTING, copies_per_message, rooms_load

ROOMS, MEMBERS = 100, 10
REFERENCE = "centrifugo"
LOADS = {"tenth": 0.1, "quarter": 0.25, "half": 0.5, "three quarters": 0.75, "nine tenths": 0.9}
"""Shares of the rate that saturates the reference."""

P99_MAX_US = 1_000_000
"""If the 99th percentile of a peer is higher, higher rates are not measured."""


class LatencyAtFixedRate:
    """Rooms in which all members publish at a fixed rate, whether the server keeps up or not.

    The rate that saturates the reference is measured once and used for all peers and rounds.
    """

    name = "latency"

    def __init__(self) -> None:
        self._saturation_per_second = 0.0

    def supports(self, peer: Peer) -> bool:
        return "rooms" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        if not self._saturation_per_second:
            self._saturation_per_second = saturation()
        seconds = max(1.0, 3 * effort.seconds)
        with rooms_load(subject, subject.text, ROOMS, MEMBERS) as load:
            load.connect(CONNECTING)
            for name, share in LOADS.items():
                rate = round(self._saturation_per_second * share, -2)
                measured = measure_rate(subject, load, rate, seconds)
                yield {"load": name, "rate": rate}, measured
                if measured["missing"] or measured["p99_us"] > P99_MAX_US:
                    return


def measure_rate(subject: Subject, load: Load, rate: float, seconds: float) -> Metrics:
    """One rate, after a warm-up of one second at half this rate."""
    copies = copies_per_message(subject.text, MEMBERS)
    load.rate(rate / 2, 1.0, copies)
    before_s = subject.running.cpu_s()
    outcome = load.rate(rate, seconds, copies)
    cpu_s = subject.running.cpu_s() - before_s
    return metrics(outcome, cpu_s, outcome.sent) | {"missing": outcome.missing, "late": outcome.late}


def saturation() -> float:
    """Messages per second of the reference with eight messages in flight in every room."""
    peer = PEERS[REFERENCE]
    peer.install()
    with peer.start() as running:
        subject = Subject(peer, running, 0)
        with rooms_load(subject, subject.text, ROOMS, MEMBERS) as load:
            load.connect(CONNECTING)
            copies = copies_per_message(subject.text, MEMBERS)
            load.flood(8, 50, copies)
            outcome = load.flood(8, 500, copies)
    return outcome.sent / outcome.seconds
