"""The control bus of the memory engine, for the one node of this process."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from beaconfire.engines.port import ControlHandler


class MemoryControlStatistics(Struct, frozen=True):
    """A snapshot of counters."""

    broadcasts_total: int
    sends_total: int
    surveys_total: int


class MemoryControlBus:
    """Implements `ControlBus` for a single node, which gets its own messages before the call returns."""

    def __init__(self) -> None:
        self._handler: ControlHandler | None = None
        self._uid = ""
        self._broadcasts_total = 0
        self._sends_total = 0
        self._surveys_total = 0

    async def start(self, uid: str, handler: ControlHandler) -> None:
        """Raises RuntimeError if the bus is already started, because it serves exactly one node."""
        if self._handler is not None:
            raise RuntimeError("the memory control bus is already started and serves one node only")
        self._uid = uid
        self._handler = handler

    async def stop(self) -> None:
        """Idempotent."""
        self._handler = None

    async def broadcast(self, message: bytes) -> None:
        """See `ControlBus.broadcast`. Raises RuntimeError unless started."""
        handler = self._started()
        self._broadcasts_total += 1
        handler.on_control(message)

    async def send(self, node: str, message: bytes) -> bool:
        """See `ControlBus.send`. Raises RuntimeError unless started."""
        handler = self._started()
        if node != self._uid:
            return False
        self._sends_total += 1
        handler.on_control(message)
        return True

    async def survey(self, request: bytes, timeout_s: float) -> list[bytes]:
        """See `ControlBus.survey`. Never waits. Raises RuntimeError unless started."""
        handler = self._started()
        self._surveys_total += 1
        return [handler.on_survey(request)]

    async def nodes(self) -> Sequence[str]:
        """See `ControlBus.nodes`. Raises RuntimeError unless started."""
        self._started()
        return [self._uid]

    def statistics(self) -> MemoryControlStatistics:
        return MemoryControlStatistics(self._broadcasts_total, self._sends_total, self._surveys_total)

    def _started(self) -> ControlHandler:
        if self._handler is None:
            raise RuntimeError("the memory control bus is not started")
        return self._handler
