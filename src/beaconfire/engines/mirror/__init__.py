"""A migration while the server runs: an engine that behaves as the old one, and keeps a new one equal to it."""

from __future__ import annotations

from collections.abc import Callable

from beaconfire.engines.mirror.broker import MirrorBroker
from beaconfire.engines.mirror.replicator import RETRY_S, MirrorStatus, Replicator
from beaconfire.engines.port import Durability, Engine, EngineState, EngineStatistics
from beaconfire.engines.transfer import Transferable
from beaconfire.model.events import EventSink


class MirrorEngine(Engine, frozen=True, kw_only=True):
    """Presence, control messages, positions, announcements and the state are those of `old`."""

    broker: MirrorBroker
    old: Engine
    new: Engine
    replicator: Replicator

    def status(self) -> MirrorStatus:
        """How far the migration is."""
        return self.replicator.status(self.broker.read_percent)

    def state(self) -> EngineState:
        """See `Engine.state`: the new engine is not needed."""
        return self.old.state()

    def sweep(self) -> bool:
        """See `Engine.sweep`: sweeps both engines."""
        more_in_old = self.old.sweep()
        more_in_new = self.new.sweep()
        return more_in_old or more_in_new

    def statistics(self) -> EngineStatistics:
        """See `Engine.statistics`."""
        return self.old.statistics()


def mirror_engine(
    old: Engine, new: Engine, unix_s: Callable[[], float], events: EventSink, retry_s: float = RETRY_S
) -> MirrorEngine:
    """Creates a mirror of two engines that offer a `Transfer`. It starts and stops both.

    The streams of the best durability of the old engine are mirrored, with the best durability of the new one.
    `events` gets `InternalError` for defects. After a failure of the new engine, it is tried again after `retry_s`.
    """
    if not isinstance(old, Transferable) or not isinstance(new, Transferable):
        raise TypeError(f"the engines {old.name!r} and {new.name!r} must both offer a transfer")
    new_transfer = new.transfer()
    replicator = Replicator(old.transfer(), new_transfer, unix_s, events, retry_s)
    return MirrorEngine(
        name=old.name,
        broker=MirrorBroker(old.broker, new.broker, new_transfer, replicator, _best(old), _best(new)),
        presence=old.presence,
        control=old.control,
        durabilities=old.durabilities,
        keeps_order=old.keeps_order,
        old=old,
        new=new,
        replicator=replicator,
    )


def _best(engine: Engine) -> Durability:
    return engine.durabilities[-1]


__all__ = ["MirrorEngine", "MirrorStatus", "mirror_engine"]
