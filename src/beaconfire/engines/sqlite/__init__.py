"""The embedded engine whose streams survive the process: a SQLite file, with one writer thread and group commit.

Presence, control messages, and streams of durability `memory` stay in a memory engine.
"""

from __future__ import annotations

from collections.abc import Callable

from beaconfire.base.clock import Clock
from beaconfire.engines.port import Engine, EngineState, EngineStatistics
from beaconfire.engines.sqlite.broker import LiveBroker, SqliteBroker
from beaconfire.engines.sqlite.database_file import DatabaseFile
from beaconfire.engines.sqlite.schema import Opened, open_database
from beaconfire.engines.sqlite.store import Store
from beaconfire.engines.sqlite.thread import WriterThread
from beaconfire.engines.sqlite.transfer import SqliteTransfer
from beaconfire.engines.sqlite.writer import Writer
from beaconfire.model.events import EventSink


class SqliteEngine(Engine, frozen=True, kw_only=True):
    """`live` is the engine for everything that is not in the file."""

    live: Engine
    thread: WriterThread

    def state(self) -> EngineState:
        """See `Engine.state`: down while the disk is full or the file cannot be used."""
        return self.thread.state()

    def sweep(self) -> bool:
        """See `Engine.sweep`. The writer thread removes what has expired in the file."""
        return self.live.sweep()

    def transfer(self) -> SqliteTransfer:
        """See `engines.transfer.Transferable`. Only for what is in the file."""
        return SqliteTransfer(self.thread)

    def statistics(self) -> EngineStatistics:
        """See `Engine.statistics`: what is in memory."""
        return self.live.statistics()


def sqlite_engine(
    path: str,
    live: Engine,
    live_broker: LiveBroker,
    clock: Clock,
    new_epoch: Callable[[], str],
    events: EventSink,
    open_file: Callable[[str], Opened] = open_database,
) -> SqliteEngine:
    """Creates an engine on the file `path`, which is opened when the broker starts.

    `live` must be in this process and not suspend; `live_broker` is its broker. `new_epoch` returns a new epoch for
    each stream. `events` gets `StorageOpened`, and `InternalError` for defects. `open_file` is another function in
    tests of failures.
    """

    def make_store(opened: Opened) -> Store:
        return Store(opened, clock.unix_s, new_epoch, live_broker.is_attached)

    thread = WriterThread(Writer(DatabaseFile(path, open_file), make_store, clock.now_s), events)
    return SqliteEngine(
        "sqlite",
        SqliteBroker(live_broker, thread),
        live.presence,
        live.control,
        durabilities=("memory", "disk"),
        immediate=("memory",),
        keeps_order=True,
        single_node=True,
        live=live,
        thread=thread,
    )


__all__ = ["Opened", "SqliteEngine", "sqlite_engine"]
