"""The metrics and the readiness of this process, for the other processes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from beaconfire.observe.health import Health
from beaconfire.observe.metrics import MetricsSink
from beaconfire.server.workers.exposition import add_label
from beaconfire.server.workers.seat import Seat

METRICS: Final = "metrics"
READY: Final = "ready"


class OwnFigures:
    """The figures of one process. `answers` is for `serve_private`."""

    def __init__(self, seat: Seat, metrics: MetricsSink, health: Health) -> None:
        self._seat = seat
        self._metrics = metrics
        self._health = health
        self._name = seat.name

    def answers(self) -> Mapping[str, Callable[[], Awaitable[bytes]]]:
        return {METRICS: self._labelled, READY: self._own_ready}

    def retire(self) -> None:
        """From now on the series of this process have another label, because its slot has a new worker."""
        self._name = f"{self._seat.name}-retiring"

    async def _labelled(self) -> bytes:
        return add_label((await self._metrics.measure()).decode(), "worker", self._name).encode()

    async def _own_ready(self) -> bytes:
        return msgspec.json.encode(self._health.ready())
