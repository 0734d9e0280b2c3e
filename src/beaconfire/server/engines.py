"""The table of engines: one row for each value of `engine.type`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct, structs

from beaconfire.base.clock import Clock
from beaconfire.base.timers import Timers
from beaconfire.engines.guard import guard_engine
from beaconfire.engines.memory import MemoryEngine, memory_engine, random_epoch
from beaconfire.engines.mirror import mirror_engine
from beaconfire.engines.options import EngineOptions, MigrationOptions
from beaconfire.engines.port import Engine
from beaconfire.engines.sqlite import sqlite_engine
from beaconfire.model.events import EventSink, LimitHit, NodeStatistics


class EngineRow(Struct, frozen=True):
    """`make` builds the engine. It is called inside a running event loop."""

    make: Callable[[EngineOptions, Clock, EventSink], Engine]
    summary: str


def _memory(options: EngineOptions, clock: Clock, events: EventSink) -> MemoryEngine:
    return memory_engine(
        clock,
        history_bytes_max=int(options.history_max_bytes),
        on_history_full=lambda: events.emit(LimitHit("engine.history_max_bytes", "")),
    )


def _sqlite(options: EngineOptions, clock: Clock, events: EventSink) -> Engine:
    live = _memory(options, clock, events)
    return sqlite_engine(options.path, live, live.broker, clock, random_epoch, events)


ENGINES: Final[Mapping[str, EngineRow]] = {
    "memory": EngineRow(_memory, "In this process. No other service is needed, and nothing survives a restart."),
    "sqlite": EngineRow(_sqlite, "In this process, with a database file for the channels of durability `disk`."),
}


def engine_problem(engine: Engine) -> str | None:
    """The readiness check of an engine: None if it works, otherwise why it does not."""
    state = engine.state()
    return None if state.up else state.detail or "down"


def with_engine(statistics: NodeStatistics, engine: Engine) -> NodeStatistics:
    """The figures together with those of the engine."""
    found = engine.statistics()
    return structs.replace(
        statistics,
        history_publications=found.history_publications,
        history_bytes=found.history_bytes,
        engine_up=int(engine.state().up),
        migration_waiting=found.migration_waiting,
        migration_read_percent=found.migration_read_percent,
    )


def make_engine(
    options: EngineOptions, migration: MigrationOptions, clock: Clock, timers: Timers, events: EventSink
) -> Engine:
    """The configured engine, with the new engine of a migration if there is one, and behind a guard if it suspends.

    Call this inside a running event loop.
    """
    engine = ENGINES[options.type].make(options, clock, events)
    if migration.to != "none":
        into = structs.replace(options, type=migration.to, path=migration.path)
        new = ENGINES[migration.to].make(into, clock, events)
        engine = mirror_engine(
            engine, new, clock.unix_s, events, migration.read_percent, timeout_s=float(options.timeout) / 2
        )
    return guard_engine(engine, float(options.timeout), timers, events) if engine.suspends else engine
