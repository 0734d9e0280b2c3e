"""Measures how long the node keeps the event loop busy without a turn.

A timer of one millisecond looks at the CPU time of the thread. If a turn of the event loop takes longer than a
millisecond, the timer fires once per turn, so the CPU time between two calls is that of one turn. The clients run on
the same event loop. They work in slices of their own, which report their CPU time, and that is subtracted. CPU time
does not count what other programs of the machine do.
"""

from __future__ import annotations

import asyncio
import gc
import time

from msgspec import Struct

TICK_S = 0.001
LATE_S = 0.02
"""A turn that takes longer makes the event loop late."""

LONG_S = 0.008
"""A turn that takes longer is worth a look."""


class Lateness(Struct):
    """CPU times in seconds. `wall_s` is the longest time between two turns, with everything that the machine did."""

    turns: int
    p99_s: float
    longest_s: float
    long: int
    late: int
    wall_s: float
    collection_s: float
    node_share: float
    clients_share: float

    def __str__(self) -> str:
        return (
            f"node per turn: p99 {self.p99_s * 1e3:.1f} ms, longest {self.longest_s * 1e3:.1f} ms, "
            f"{self.long} of {self.turns} above {LONG_S * 1e3:.0f} ms, {self.late} above {LATE_S * 1e3:.0f} ms; "
            f"longest by the wall clock {self.wall_s * 1e3:.1f} ms; longest garbage collection "
            f"{self.collection_s * 1e3:.1f} ms; CPU of the node {self.node_share:.0%}, of the clients "
            f"{self.clients_share:.0%}"
        )


class LoopMeter:
    """Measures from `start` to `stop`."""

    def __init__(self) -> None:
        self.clients_s = 0.0
        """CPU time of the clients so far. They add to it."""
        self._turns: list[float] = []
        self._wall_s = self._collection_s = 0.0
        self._handle: asyncio.TimerHandle | None = None
        self._collection_began_s = 0.0

    def start(self) -> None:
        self._turns.clear()
        self._wall_s = self._collection_s = 0.0
        self._began = time.monotonic(), time.thread_time(), self.clients_s
        self._last = self._began
        gc.callbacks.append(self._on_collection)
        self._tick()

    def stop(self) -> Lateness:
        assert self._handle is not None, "started"
        self._handle.cancel()
        gc.callbacks.remove(self._on_collection)
        turns = sorted(self._turns)
        wall_s = time.monotonic() - self._began[0]
        clients_s = self.clients_s - self._began[2]
        return Lateness(
            turns=len(turns),
            p99_s=turns[int(len(turns) * 0.99)],
            longest_s=turns[-1],
            long=sum(turn > LONG_S for turn in turns),
            late=sum(turn > LATE_S for turn in turns),
            wall_s=self._wall_s,
            collection_s=self._collection_s,
            node_share=(time.thread_time() - self._began[1] - clients_s) / wall_s,
            clients_share=clients_s / wall_s,
        )

    def _tick(self) -> None:
        now = time.monotonic(), time.thread_time(), self.clients_s
        self._turns.append((now[1] - self._last[1]) - (now[2] - self._last[2]))
        self._wall_s = max(self._wall_s, now[0] - self._last[0])
        self._last = now
        self._handle = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collection_began_s = time.thread_time()
        else:
            self._collection_s = max(self._collection_s, time.thread_time() - self._collection_began_s)
