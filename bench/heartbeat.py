"""`python -m bench.heartbeat CONFIG PORT`: runs Beaconfire and measures how long its event loop stalls.

A timer is due every millisecond. The longest time between two calls of the timer, less that millisecond, is the longest
stall. On SIGUSR1 the program prints the longest stall in microseconds and starts a new measurement. Timers of the event
loop count whole milliseconds, so the result may be one millisecond too long. Everything else is `beaconfire serve`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time

from beaconfire.config import load
from beaconfire.server import process
from beaconfire.server.app import App

INTERVAL_S = 0.001


class Heartbeat:
    """A timer on the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGUSR1, self._print_longest_stall)
        self._last_s = time.perf_counter()
        self._longest_s = 0.0
        self._beat()

    def _beat(self) -> None:
        now_s = time.perf_counter()
        self._longest_s = max(self._longest_s, now_s - self._last_s - INTERVAL_S)
        self._last_s = now_s
        self._loop.call_later(INTERVAL_S, self._beat)

    def _print_longest_stall(self) -> None:
        print(f"{self._longest_s * 1e6:.0f}", flush=True)
        self._longest_s = 0.0


class AppWithHeartbeat(App):
    async def start(self) -> None:
        await super().start()
        self.heartbeat = Heartbeat()


def main() -> int:
    config, port = sys.argv[1:]
    vars(process)["App"] = AppWithHeartbeat  # `beaconfire serve` takes the class from there
    return process.run(load(config, {}, {"server.port": port}))


if __name__ == "__main__":
    sys.exit(main())
