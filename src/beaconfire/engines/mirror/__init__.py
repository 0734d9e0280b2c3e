"""A migration while the server runs: an engine that behaves as the old one, and keeps a new one equal to it.

The old engine decides everything. The new one follows (`replicator`), and answers reads of some channels (`broker`).
The memory engine is empty after each start. So as the old engine it first gets what the new one has kept (`restoring`):
this is how streams move into a memory engine.

At the end of the server, the new engine becomes the original of the streams if it has all of them, and if the old one
ends with the process or `read_percent` is 100. Then both can be started: whichever was not the original gives its
streams new epochs, so no client takes one for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from beaconfire.engines.mirror.broker import LAST_LOADS_S, MirrorBroker, best_durability
from beaconfire.engines.mirror.control import MirrorMigration
from beaconfire.engines.mirror.replicator import RETRY_S, Replicator
from beaconfire.engines.mirror.restoring import RESTORE_S_MAX
from beaconfire.engines.port import Engine, EngineState, EngineStatistics
from beaconfire.engines.transfer import Transferable
from beaconfire.model.events import EventSink

TIMEOUT_S: Final = 1.5
"""How long a read of the new engine may take, before the old engine is read. Less than the deadline of a call, so that
a new engine that hangs fails no call."""


class MirrorEngine(Engine, frozen=True, kw_only=True):
    """Presence, control messages, positions, announcements and the state are those of `old`."""

    broker: MirrorBroker
    old: Engine
    new: Engine
    replicator: Replicator

    def state(self) -> EngineState:
        """See `Engine.state`: the new engine is not needed."""
        return self.old.state()

    def sweep(self) -> bool:
        """See `Engine.sweep`: sweeps both engines."""
        self.replicator.sweep()
        more_in_old = self.old.sweep()
        more_in_new = self.new.sweep()
        return more_in_old or more_in_new

    def statistics(self) -> EngineStatistics:
        """See `Engine.statistics`: the history of the old engine."""
        return replace(
            self.old.statistics(),
            migration_waiting=self.replicator.waiting,
            migration_read_percent=self.broker.read_percent,
        )


def mirror_engine(
    old: Engine,
    new: Engine,
    unix_s: Callable[[], float],
    events: EventSink,
    read_percent: float = 0.0,
    retry_s: float = RETRY_S,
    timeout_s: float = TIMEOUT_S,
) -> MirrorEngine:
    """Creates a mirror of two engines that offer a `Transfer`. It starts and stops both.

    The streams of the best durability of the old engine are mirrored, with the best durability of the new one.
    `events` gets `MigrationProgressed`, `MigrationFailed`, `MigrationReadChanged`, and `InternalError` for defects.
    `read_percent` is that of `Migration.set_read_percent` at the start. After a failure of the new engine, it is tried
    again after `retry_s`. `timeout_s` is described at `TIMEOUT_S`.
    """
    if not isinstance(old, Transferable) or not isinstance(new, Transferable):
        raise TypeError(f"the engines {old.name!r} and {new.name!r} must both offer a transfer")
    old_transfer, new_transfer = old.transfer(), new.transfer()
    replicator = Replicator(old_transfer, new_transfer, unix_s, events, retry_s)
    broker = MirrorBroker(old, new, old_transfer, new_transfer, replicator, unix_s, events, read_percent, timeout_s)
    return MirrorEngine(
        name=old.name,
        broker=broker,
        presence=old.presence,
        control=old.control,
        durabilities=old.durabilities,
        immediate=tuple(each for each in old.immediate if each != best_durability(old)),
        keeps_order=old.keeps_order,
        single_node=old.single_node,
        start_wait_s=RESTORE_S_MAX,
        stop_wait_s=LAST_LOADS_S,
        migration=MirrorMigration(old.name, new.name, broker, replicator, events),
        old=old,
        new=new,
        replicator=replicator,
    )


__all__ = ["RESTORE_S_MAX", "TIMEOUT_S", "MirrorEngine", "mirror_engine"]
