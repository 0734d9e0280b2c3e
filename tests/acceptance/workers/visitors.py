"""Clients that come and go: `python -m tests.acceptance.workers.visitors PORT RATE SECONDS` is one process of them.

One process connects some fifty clients per second, so a test starts several.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.raw_peer import ClosedError, RawPeer

CHANNELS = [f"room{number}" for number in range(4)]
RATE_MAX = 50.0
"""New connections per second of one process."""


class Visits(NamedTuple):
    """How many clients were served, and when and why others were not (monotonic; the clock of all processes)."""

    served: int
    failures: list[tuple[float, str]]


async def visit_from_processes(port: int, rate: float, duration_s: float) -> Visits:
    """`rate` new connections per second, from as many processes as that needs."""
    count = math.ceil(rate / RATE_MAX)
    found = await asyncio.gather(*(_run_process(port, rate / count, duration_s) for _ in range(count)))
    return Visits(sum(each.served for each in found), [failure for each in found for failure in each.failures])


async def _run_process(port: int, rate: float, duration_s: float) -> Visits:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, str(port), str(rate), str(duration_s)),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0
    return Visits(*json.loads(output))


class Visitors:
    """Each client connects, subscribes, waits for a moment and leaves."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._served = 0
        self._failures: list[tuple[float, str]] = []

    async def run(self, rate: float, duration_s: float) -> Visits:
        """Starts clients at this rate, also if the server is slow. Returns when the last one has left."""
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as visits:
            for number in range(int(rate * duration_s)):
                await asyncio.sleep(began_s + number / rate - time.monotonic())
                visits.create_task(self._visit())
        return Visits(self._served, self._failures)

    async def _visit(self) -> None:
        try:
            peer = await RawPeer.connect_websocket(self._port)
        except (OSError, EOFError, AssertionError) as error:
            self._failures.append((time.monotonic(), repr(error)))
            return
        try:
            subscribe = {"channel": random.choice(CHANNELS)}
            await peer.send_json({"id": 1, "connect": {}}, {"id": 2, "subscribe": subscribe})
            await peer.read_messages()
            await asyncio.sleep(random.uniform(0, 2))
        except (OSError, ClosedError):
            pass  # the worker was killed or has handed the client over: the client was connected
        finally:
            peer.close()
        self._served += 1


if __name__ == "__main__":
    print(json.dumps(asyncio.run(Visitors(int(sys.argv[1])).run(float(sys.argv[2]), float(sys.argv[3])))))
