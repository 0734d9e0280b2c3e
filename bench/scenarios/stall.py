"""The longest time for which the event loop answers nobody while it fans out."""

from __future__ import annotations

import signal
import sys

from bench.peers.base import Peer, Running
from bench.peers.beaconfire import CONFIG
from bench.processes import Program, wait_listening
from bench.scenarios.base import Effort, Measured, Subject
from bench.scenarios.chatter import CONNECTING, audience

MESSAGES = 20


class Stall:
    """Beaconfire alone: it needs a server with a pulse."""

    name = "stall"

    def suits(self, peer: Peer) -> bool:
        return peer.name == "beaconfire"

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        for subscribers in (1000, 15_000):
            with Living() as running, audience(subject._replace(running=running), subject.text, subscribers) as load:
                load.connect(CONNECTING)
                for window in (1, 8):
                    load.flood(window, window, subscribers)
                    running.longest_stall_us()
                    load.flood(window, MESSAGES, subscribers)
                    stall_us = running.longest_stall_us()
                    yield {"subscribers": subscribers, "in_flight": window}, {"max_us": stall_us}


class Living(Running):
    """Beaconfire with a pulse."""

    def __init__(self) -> None:
        super().__init__()
        self._program = Program([sys.executable, "-m", "bench.heartbeat", str(CONFIG), str(self.port)])
        self.parts["server"] = self._program
        wait_listening(self.port, self._program.process)

    def longest_stall_us(self) -> float:
        """Since it was asked last."""
        self._program.process.send_signal(signal.SIGUSR1)
        return float(self._program.read_line())
