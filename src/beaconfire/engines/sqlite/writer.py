"""Runs batches of operations on the database file, and keeps the file usable: retention, checkpoints, trouble.

All methods block, and are called on one thread. `state` and `refusal` may be read on another one.
"""

from __future__ import annotations

import contextlib
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

_UP: Final = EngineState(up=True)

_OLD_LIBRARY: Final = (
    f"SQLite is older than {'.'.join(map(str, WAL_FIX))}: while the server runs, no other program may write to this "
    "file or checkpoint it, because commits could be lost"
)


class Writer:
    """The owner of the database file. `open` first, `close` last.

    In trouble there are two states. The disk is *full*: publications are refused, reading goes on, and space is made.
    The file is *broken* by an I/O error: everything is refused until the file could be opened again. A damaged file is
    not opened again.
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
            with contextlib.suppress(sqlite3.Error):
                self._file.empty_log()
        self._file.unlock()

    def run(self, operations: Sequence[Operation[Any]]) -> None:
        """Runs one batch, and sets the result or the error of each operation. Never raises sqlite3.Error.

        The results are true: the batch is on disk. After an error no operation of the batch has taken effect, except
        that after an I/O error this is not known.
        """
        if self.refusal is None:
            self._try(operations)
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
            if now_s >= self._heal_s and not self._damaged:
                self._heal_s = now_s + HEAL_INTERVAL_S
                self._heal()
            return False
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
        try:
            for operation in operations:
                if operation.error is None:
                    operation.read(store)
            store.commit()
        except Exception as error:  # noqa: BLE001 - likewise
            self._fail([each for each in operations if each.reads], error)

    def _fail(self, operations: Sequence[Operation[Any]], error: Exception) -> None:
        """Fails the operations, which had no effect. After a defect in one of them the others are tried again."""
        self._on_trouble(error)
        if self.refusal is not None:
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
        text = (
            f"the disk of {self._file.path!r} is full: nothing was published. Free some space; then this ends by itself"
        )
        self.refusal = lambda: StorageFull(text)
        self.state = EngineState(False, text)
        self._heal_s = self._now_s()
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

    def _heal(self) -> None:
        """Makes the file usable again, if this is possible now."""
        try:
            if self._store is None:
                self._open()
            self._make_room()
            healed = self._file.take_reserve() or self._file.has_room()
        except StorageUnusable as error:
            self.state = EngineState(False, error.detail)
        except Exception as error:  # noqa: BLE001 - a defect must not end the thread
            self._on_trouble(error)
            self._heal_s = self._now_s() + HEAL_INTERVAL_S
        else:
            if healed and self._store is not None:
                self._store.freeze(False)
                self.refusal = None
                self.state = _UP

    def _make_room(self) -> None:
        """Uses the reserve for a slice of retention, and tries a write. Raises sqlite3.Error."""
        assert self._store is not None, "the file is open"
        self._file.release_reserve()
        self._file.empty_log()
        self._store.sweep(SWEEP_BUDGET)
        self._file.try_write()
        self._file.empty_log()

    # Upkeep

    def _sweep(self) -> bool:
        assert self._store is not None, "the file is open"
        try:
            self._file.take_reserve()
            return self._store.sweep(SWEEP_BUDGET)
        except Exception as error:  # noqa: BLE001 - likewise
            self._on_trouble(error)
            return False

    def _empty_log(self) -> None:
        try:
            self._file.empty_log(TRUNCATE_BYTES)
        except sqlite3.Error as error:
            self._on_trouble(error)

    def _open(self) -> None:
        opened = self._file.open()
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
