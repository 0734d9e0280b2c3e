"""Runs batches of operations on the database file, and keeps the file usable: retention, checkpoints, trouble.

All methods block, and are called on one thread. `state` and `refusal` may be read on another one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

from beaconfire.base.errors import CommandError, EngineUnavailable, StorageFull, StorageUnusable
from beaconfire.engines.port import EngineState
from beaconfire.engines.sqlite.database_file import TRUNCATE_BYTES, DatabaseFile
from beaconfire.engines.sqlite.operations import Operation
from beaconfire.engines.sqlite.schema import WAL_FIX, Opened, primary_code, unusable
from beaconfire.engines.sqlite.store import Store
from beaconfire.model.events import EventSink, NoEvents, StorageOpened, report_error

SWEEP_BUDGET: Final = 1000
"""How many expired publications one slice of retention removes: a few milliseconds."""

SWEEP_INTERVAL_S: Final = 1.0

HEAL_INTERVAL_S: Final = 0.5
"""How often a file in trouble is tried again."""

CHECK_INTERVAL_S: Final = 5.0
"""How often a file that seems damaged is checked. A disk that cannot be read looks like a damaged file to SQLite."""

_UP: Final = EngineState(up=True)

_OLD_LIBRARY: Final = (
    f"SQLite is older than {'.'.join(map(str, WAL_FIX))}: while the server runs, no other program may write to this "
    "file or checkpoint it, because commits could be lost"
)


class Writer:
    """The owner of the database file. `open` first, `close` last.

    In trouble there are two states. The disk is *full*: publications are refused, reading goes on, and space is made.
    The file is *broken* by an I/O error: everything is refused until the file could be opened again. A file that seems
    damaged is used again only after a check of all its pages.
    """

    def __init__(self, file: DatabaseFile, make_store: Callable[[Opened], Store], now_s: Callable[[], float]) -> None:
        """`now_s` is a monotonic clock."""
        self._file = file
        self._make_store = make_store
        self._now_s = now_s
        self._store: Store | None = None
        self._sweep_s = self._heal_s = now_s()
        self._damaged = False
        self.events: EventSink = NoEvents()
        """Gets `StorageOpened`, and `InternalError` for defects, on the thread of the caller."""
        self.state = _UP
        self.refusal: Callable[[], CommandError] | None = None
        """Makes the error for publications that are refused without being tried."""

    def open(self) -> None:
        """Takes the lock and opens the file. Raises StorageUnusable, which says what to do."""
        self._file.lock()
        try:
            self._open()
        except BaseException:
            self._file.unlock()
            raise
        if not self._file.take_reserve():
            self._on_full()

    def close(self) -> None:
        """Empties the write-ahead log, if the disk has room, and gives the file free. Idempotent."""
        if self._store is not None:
            self._store = None
            self._file.end_session()
        self._file.unlock()

    def run(self, operations: Sequence[Operation[Any]]) -> None:
        """Runs one batch, and sets the result or the error of each operation. Never raises sqlite3.Error.

        The results are true: the batch is on disk. After an error no operation of the batch has taken effect, except
        that after an I/O error this is not known.
        """
        if self.refusal is None:
            self._try(operations)
            if self._file.is_lean and self.refusal is None:
                self._keep_reserve()
            return
        for operation in operations:
            if operation.stores or self._store is None:
                operation.error = self.refusal()
            else:
                self._try([operation])  # Alone, because one that creates a stream needs room, and fails.

    def maintain(self, idle: bool) -> bool:
        """Between batches: retention, checkpoints, healing. At most a few milliseconds, unless the disk is slow.

        `idle` tells whether no operation waits. True if more work remains, which may be done at once.
        """
        now_s = self._now_s()
        if self.refusal is not None:
            if now_s < self._heal_s:
                return False
            self._heal_s = now_s + (CHECK_INTERVAL_S if self._damaged else HEAL_INTERVAL_S)
            return self._heal()
        if now_s < self._sweep_s:
            if idle:
                self._empty_log()
            return False
        more = self._sweep()
        if not more:
            self._sweep_s = now_s + SWEEP_INTERVAL_S
        return more

    # Batches

    def _try(self, operations: Sequence[Operation[Any]]) -> None:
        store = self._store
        assert store is not None, "the file is open"
        try:
            _apply(operations, store)
            store.commit()
        except Exception as error:  # noqa: BLE001 - a defect must not end the thread
            self._fail(operations, error)
            return
        reads = [each for each in operations if each.reads and each.error is None]
        if not reads:
            return
        try:
            for operation in reads:
                operation.read(store)
            store.commit()
        except Exception as error:  # noqa: BLE001 - likewise
            self._fail(reads, error)

    def _fail(self, operations: Sequence[Operation[Any]], error: Exception) -> None:
        """Fails the operations, which had no effect. After a defect in one of them the others are tried again."""
        self._on_trouble(error)
        if self.refusal is not None and len(operations) > 1:
            self.run(operations)  # Reading goes on.
        elif self.refusal is not None:
            for operation in operations:
                operation.error = self.refusal()
        elif len(operations) > 1:
            for operation in operations:
                self._try([operation])
        else:
            for operation in operations:
                operation.error = EngineUnavailable(f"{type(error).__name__}, see internal_error in the log")

    # Trouble

    def _on_trouble(self, error: Exception) -> None:
        """The transaction has failed."""
        assert self._store is not None, "the file is open"
        try:
            self._store.rollback()
        except sqlite3.Error as second:
            error = second
        if not isinstance(error, sqlite3.Error) or isinstance(error, sqlite3.InterfaceError | sqlite3.ProgrammingError):
            report_error(self.events, "sqlite writer", error)  # A defect of the code: the file is as it was.
        elif primary_code(error) == sqlite3.SQLITE_FULL:
            self._on_full()
        else:
            self._on_broken(error)

    def _on_full(self) -> None:
        if self.refusal is None:
            self._heal_s = self._now_s()  # At once, because the reserve may suffice.
        text = (
            f"the disk of {self._file.path!r} is full: nothing was published. Free some space; then this ends by itself"
        )
        self.refusal = lambda: StorageFull(text)
        self.state = EngineState(False, text)
        if self._store is not None:
            self._store.freeze(True)

    def _on_broken(self, error: sqlite3.Error) -> None:
        """The connection may hold a wrong idea of the file, so it is closed. Opening the file reads all of it again."""
        self._damaged = primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        detail = unusable(self._file.path, error).detail
        self.refusal = lambda: EngineUnavailable(detail)
        self.state = EngineState(False, detail)
        self._heal_s = self._now_s() + HEAL_INTERVAL_S
        self._store = None
        self._file.close()

    def _heal(self) -> bool:
        """Makes the file usable again, if this is possible now. True if more can be removed to make room, at once."""
        try:
            if self._store is None:
                self._open()
            more = self._make_room()
            if self._file.take_reserve():
                self._on_healed()
                return False
        except StorageUnusable as error:
            self.state = EngineState(False, error.detail)
        except Exception as error:  # noqa: BLE001 - a defect must not end the thread
            self._on_trouble(error)
        else:
            self._on_full()
            if more:
                self._heal_s = self._now_s()
            return more
        return False

    def _make_room(self) -> bool:
        """Uses the reserve for a slice of retention, and tries a write. True if more can be removed. Raises
        sqlite3.Error."""
        assert self._store is not None, "the file is open"
        self._file.release_reserve()
        self._file.empty_log()
        more = self._store.sweep(SWEEP_BUDGET)
        self._file.try_write()
        self._file.empty_log()
        return more

    def _on_healed(self) -> None:
        assert self._store is not None, "the file is open"
        self._store.freeze(False)
        self.refusal = None
        self.state = _UP

    # Upkeep

    def _sweep(self) -> bool:
        assert self._store is not None, "the file is open"
        try:
            if not self._file.take_reserve():
                self._on_full()
                return False
            return self._store.sweep(SWEEP_BUDGET)
        except Exception as error:  # noqa: BLE001 - likewise
            self._on_trouble(error)
            return False

    def _keep_reserve(self) -> None:
        try:
            if not self._file.keep_reserve():
                self._on_full()
        except sqlite3.Error as error:
            self._on_trouble(error)

    def _empty_log(self) -> None:
        try:
            self._file.empty_log(TRUNCATE_BYTES)
        except sqlite3.Error as error:
            self._on_trouble(error)

    def _open(self) -> None:
        opened = self._file.open(is_suspect=self._damaged)
        self._damaged = False
        self._store = self._make_store(opened)
        advice = _OLD_LIBRARY if sqlite3.sqlite_version_info < WAL_FIX else ""
        self.events.emit(StorageOpened(self._file.path, f"sqlite {sqlite3.sqlite_version}", opened.is_copy, advice))


def _apply(operations: Sequence[Operation[Any]], store: Store) -> None:
    for operation in operations:
        operation.error = None
        try:
            operation.apply(store)
        except CommandError as error:
            operation.error = error
