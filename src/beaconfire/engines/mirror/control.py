"""What operators see and do during a migration."""

from __future__ import annotations

from beaconfire.engines.migration import MigrationStatus
from beaconfire.engines.mirror.broker import MirrorBroker
from beaconfire.engines.mirror.replicator import Replicator
from beaconfire.model.events import EventSink, MigrationReadChanged


class MirrorMigration:
    """Implements `Migration`. No call suspends."""

    def __init__(self, old: str, new: str, broker: MirrorBroker, replicator: Replicator, events: EventSink) -> None:
        """`old` and `new` are the names of the engines."""
        self._old = old
        self._new = new
        self._broker = broker
        self._replicator = replicator
        self._events = events

    async def status(self) -> MigrationStatus:
        """See `Migration.status`."""
        replicator = self._replicator
        return MigrationStatus(
            self._old,
            self._new,
            replicator.phase,
            replicator.done,
            replicator.total,
            replicator.waiting,
            self._broker.read_percent,
            replicator.problem,
            replicator.verification,
            replicator.verified,
        )

    async def set_read_percent(self, percent: float) -> MigrationStatus:
        """See `Migration.set_read_percent`."""
        self._broker.read_percent = percent
        self._events.emit(MigrationReadChanged(percent))
        return await self.status()

    async def verify(self) -> MigrationStatus:
        """See `Migration.verify`."""
        self._replicator.verify()
        return await self.status()
