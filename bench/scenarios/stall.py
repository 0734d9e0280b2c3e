"""The longest stall of the event loop during fan-out."""

from __future__ import annotations

import signal
import sys

from bench.peers.base import Peer, Running
from bench.peers.beaconfire import CONFIG
from bench.processes import Program, wait_listening
from bench.scenarios.base import Effort, Measured, Subject
from bench.scenarios.messaging import CONNECTING, fan_out_load

MESSAGES = 20


class Stall:
    """Only for Beaconfire, because it needs a server with a heartbeat."""

    name = "stall"

    def supports(self, peer: Peer) -> bool:
        return peer.name == "beaconfire"

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        for subscribers in (1000, 15_000):
            with (
                ServerWithHeartbeat() as running,
                fan_out_load(subject._replace(running=running), subject.text, subscribers) as load,
            ):
                load.connect(CONNECTING)
                for window in (1, 8):
                    load.flood(window, window, subscribers)
                    running.longest_stall_us()
                    load.flood(window, MESSAGES, subscribers)
                    stall_us = running.longest_stall_us()
                    yield {"subscribers": subscribers, "in_flight": window}, {"max_us": stall_us}


class ServerWithHeartbeat(Running):
    """Beaconfire, started by `bench.heartbeat`."""

    def __init__(self) -> None:
        super().__init__()
        self._program = Program([sys.executable, "-m", "bench.heartbeat", str(CONFIG), str(self.port)])
        self.parts["server"] = self._program
        wait_listening(self.port, self._program.process)

    def longest_stall_us(self) -> float:
        """Since the last call."""
        self._program.process.send_signal(signal.SIGUSR1)
        return float(self._program.read_line())
