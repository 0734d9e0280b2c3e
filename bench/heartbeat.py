"""`python -m bench.heartbeat CONFIG PORT`: Beaconfire with a pulse, to see how long its event loop answers nobody.

A timer is due every millisecond; the longest time between two beats, less that millisecond, is the longest stall. On
SIGUSR1 it is printed, in microseconds, and begins anew. Timers of the loop know whole milliseconds only, so it may be
one too long. Everything else is `beaconfire serve`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time

from beaconfire.config import load
from beaconfire.server import process
from beaconfire.server.app import App

BEAT_S = 0.001


class Heart:
    """Beats on the loop it is made in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGUSR1, self._tell)
        self._last_s = time.perf_counter()
        self._longest_s = 0.0
        self._beat()

    def _beat(self) -> None:
        now_s = time.perf_counter()
        self._longest_s = max(self._longest_s, now_s - self._last_s - BEAT_S)
        self._last_s = now_s
        self._loop.call_later(BEAT_S, self._beat)

    def _tell(self) -> None:
        print(f"{self._longest_s * 1e6:.0f}", flush=True)
        self._longest_s = 0.0


class LivingApp(App):
    """An App with a heart."""

    async def start(self) -> None:
        await super().start()
        self.heart = Heart()


def main() -> int:
    config, port = sys.argv[1:]
    vars(process)["App"] = LivingApp  # where `beaconfire serve` takes it from
    return process.run(load(config, {}, {"server.port": port}))


if __name__ == "__main__":
    sys.exit(main())
