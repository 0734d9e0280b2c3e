"""The migration of the hub's engine, for a worker process."""

from __future__ import annotations

from typing import Literal

from beaconfire.engines.migration import MigrationStatus
from beaconfire.engines.remote.link import Link
from beaconfire.engines.wire.messages import MigrationState, SteerMigration


class RemoteMigration:
    """Implements `Migration`. Each call is one request."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def status(self) -> MigrationStatus:
        return await self._send("status")

    async def set_read_percent(self, percent: float) -> MigrationStatus:
        return await self._send("set_read_percent", percent)

    async def verify(self) -> MigrationStatus:
        return await self._send("verify")

    async def _send(
        self, call: Literal["status", "set_read_percent", "verify"], read_percent: float = 0.0
    ) -> MigrationStatus:
        return (await self._link.send(SteerMigration(0, call, read_percent), MigrationState)).status
