"""The table of engines: one row for each value of `engine.type`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct, structs

from beaconfire.base.loop import Runtime
from beaconfire.config.sections import Config
from beaconfire.engines.guard import guard_engine
from beaconfire.engines.memory import MemoryEngine, memory_engine, random_epoch
from beaconfire.engines.mirror import mirror_engine
from beaconfire.engines.options import EngineOptions
from beaconfire.engines.port import Engine
from beaconfire.engines.sqlite import sqlite_engine
from beaconfire.model.events import EventSink, LimitHit, NodeStatistics


class Needs(Struct, frozen=True):
    """What engines are made from. `config` is read for the sections of engines only."""

    config: Config
    options: EngineOptions
    runtime: Runtime
    events: EventSink


class EngineRow(Struct, frozen=True):
    """`make` builds the engine. It is called inside a running event loop."""

    make: Callable[[Needs], Engine]
    summary: str


def _memory(needs: Needs) -> MemoryEngine:
    return memory_engine(
        needs.runtime.timers.clock,
        history_bytes_max=int(needs.options.history_max_bytes),
        on_history_full=lambda: needs.events.emit(LimitHit("engine.history_max_bytes", "")),
    )


def _sqlite(needs: Needs) -> Engine:
    live, clock = _memory(needs), needs.runtime.timers.clock
    return sqlite_engine(needs.options.path, live, live.broker, clock, random_epoch, needs.events)


def _redis(needs: Needs) -> Engine:
    from beaconfire.engines.redis import redis_engine  # only here, because the library is an extra

    return redis_engine(needs.config.redis, needs.runtime, needs.events, random_epoch)


ENGINES: Final[Mapping[str, EngineRow]] = {
    "memory": EngineRow(_memory, "In this process. No other service is needed, and nothing survives a restart."),
    "sqlite": EngineRow(_sqlite, "In this process, with a database file for the channels of durability `disk`."),
    "redis": EngineRow(_redis, "Redis or Valkey: nodes on several machines share channels."),
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


def make_engine(config: Config, runtime: Runtime, events: EventSink) -> Engine:
    """The configured engine, with the new engine of a migration if there is one, and behind a guard if it suspends.

    Call this inside a running event loop.
    """
    options, migration, timers = config.engine, config.migration, runtime.timers
    engine = ENGINES[options.type].make(Needs(config, options, runtime, events))
    if migration.to != "none":
        into = structs.replace(options, type=migration.to, path=migration.path)
        new = ENGINES[migration.to].make(Needs(config, into, runtime, events))
        engine = mirror_engine(
            engine, new, timers.clock.unix_s, events, migration.read_percent, timeout_s=float(options.timeout) / 2
        )
    return guard_engine(engine, float(options.timeout), timers, events) if engine.suspends else engine
