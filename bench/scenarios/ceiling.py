"""The cost of fan-out compared with the cost of the kernel's send(), measured in alternation with a bare C loop.

The cost of send() on one machine changes by half from minute to minute. So the peer and the C loop run at the same
time, each with its own subscribers, and take turns of a fraction of a second. Each turn has its own ratio.
"""

from __future__ import annotations

import statistics

from bench.load import Load
from bench.peers import PEERS
from bench.peers.base import Peer, Running
from bench.scenarios.base import Effort, Measured, Subject
from bench.scenarios.messaging import CONNECTING, fan_out_load

SUBSCRIBERS = 1000
TURNS = 12
QUICK_TURNS = 5
TURN_MESSAGES = 40
"""With one message in flight: 40,000 deliveries, a third of a second."""


class Ceiling:
    """One publisher, a thousand subscribers, one message in flight; the same work for the C loop."""

    name = "ceiling"

    def supports(self, peer: Peer) -> bool:
        return peer.name in ("beaconfire", "centrifugo", "go-gorilla", "node-ws")

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        loop = PEERS["c-loop"]
        loop.install()
        with loop.start() as loop_running:
            loop_subject = subject._replace(peer=loop, running=loop_running)
            with (
                fan_out_load(loop_subject, loop_subject.text, SUBSCRIBERS) as theirs,
                fan_out_load(subject, subject.text, SUBSCRIBERS) as ours,
            ):
                theirs.connect(CONNECTING)
                ours.connect(CONNECTING)
                costs_us = [
                    (_cost_us(subject.running, ours), _cost_us(loop_running, theirs))
                    for _ in range(1 + (QUICK_TURNS if effort.quick else TURNS))
                ]
        ratios = [cost_us / loop_us for cost_us, loop_us in costs_us[1:]]  # the first turn is a warm-up
        yield {"subscribers": SUBSCRIBERS, "in_flight": 1}, {"times_c_loop": statistics.median(ratios)}


def _cost_us(running: Running, load: Load) -> float:
    """CPU time per delivery in one turn."""
    before_s = running.cpu_s()
    outcome = load.flood(1, TURN_MESSAGES, SUBSCRIBERS)
    return (running.cpu_s() - before_s) / outcome.arrived * 1e6
