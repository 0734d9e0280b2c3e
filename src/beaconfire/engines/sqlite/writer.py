"""Runs batches of operations on the database file, and keeps the file usable: retention, checkpoints, trouble.

All methods block, and are called on one thread. `state` and `refusal` may be read on another one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

from beaconfire.base.errors import CommandError, EngineUnavailable, StorageFull, StorageUnusable
from beaconfire.engines.port import EngineState
from beaconfire.engines.sqlite.file_lock import FileLock
from beaconfire.engines.sqlite.operations import Operation
from beaconfire.engines.sqlite.reserve import RESERVE_BYTES, ReserveFile
from beaconfire.engines.sqlite.schema import WAL_FIX, Opened, open_database, primary_code, unusable
from beaconfire.engines.sqlite.store import Store
from beaconfire.model.events import EventSink, NoEvents, StorageOpened, report_error

SWEEP_BUDGET: Final = 1000
"""How many expired publications one slice of retention removes: a few milliseconds."""

SWEEP_INTERVAL_S: Final = 1.0

HEAL_INTERVAL_S: Final = 0.5
"""How often a file in trouble is tried again."""

TRUNCATE_BYTES: Final = 4 * 1024 * 1024
"""A write-ahead log above this size is emptied when there is nothing to do."""

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

    def __init__(
        self,
        path: str,
        make_store: Callable[[Opened], Store],
        now_s: Callable[[], float],
        open_file: Callable[[str], Opened] = open_database,
    ) -> None:
        """`now_s` is a monotonic clock. `open_file` is another function in tests of failures."""
        self._path = path
        self._make_store = make_store
        self._now_s = now_s
        self._open_file = open_file
        self._reserve = ReserveFile(path)
        self._lock: FileLock | None = None
        self._connection: sqlite3.Connection | None = None
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
        try:
            self._lock = FileLock(self._path)
        except OSError as error:
            raise StorageUnusable(
                self._path,
                f"cannot be used: {error.strerror}. Check that the folder exists and that this user may write to it, "
                "or change engine.path",
            ) from error
        try:
            self._open()
        except BaseException:
            self._unlock()
            raise
        if not self._reserve.create():
            self._on_full(self._now_s())

    def close(self) -> None:
        """Empties the write-ahead log, if the disk has room, and gives the file free. Idempotent."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._close_file()
        self._unlock()

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
                self._try([operation])  # Alone, because an operation that needs room fails.

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
                self._truncate_log()
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
            self._on_full(self._now_s())
        else:
            self._on_broken(error)

    def _on_full(self, now_s: float) -> None:
        text = f"the disk of {self._path!r} is full: nothing was published. Free some space; then this ends by itself"
        self.refusal = lambda: StorageFull(text)
        self.state = EngineState(False, text)
        self._heal_s = now_s

    def _on_broken(self, error: sqlite3.Error) -> None:
        """The connection may hold a wrong idea of the file, so it is closed. Opening the file reads all of it again."""
        self._damaged = primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        detail = unusable(self._path, error).detail
        self.refusal = lambda: EngineUnavailable(detail)
        self.state = EngineState(False, detail)
        self._heal_s = self._now_s() + HEAL_INTERVAL_S
        self._close_file()

    def _heal(self) -> None:
        """Makes the file usable again, if this is possible now."""
        if self._store is None:
            try:
                self._open()
            except StorageUnusable as error:
                self.state = EngineState(False, error.detail)
                return
        try:
            self._make_room()
        except sqlite3.Error as error:
            if primary_code(error) != sqlite3.SQLITE_FULL:
                self._on_trouble(error)
            else:
                self._on_full_again()
            return
        if self._reserve.create() or self._free_bytes() >= RESERVE_BYTES:
            self.refusal = None
            self.state = _UP

    def _make_room(self) -> None:
        """Uses the reserve for a slice of retention, and tries a write. Raises sqlite3.Error."""
        assert self._store is not None, "the file is open"
        assert self._connection is not None, "the file is open"
        self._reserve.release()
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._store.sweep(SWEEP_BUDGET)
        self._connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'probe'")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _on_full_again(self) -> None:
        assert self._store is not None, "the file is open"
        with contextlib.suppress(sqlite3.Error):
            self._store.rollback()

    def _free_bytes(self) -> int:
        """The bytes in the file that retention has freed."""
        assert self._connection is not None, "the file is open"
        (pages,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        (page_bytes,) = self._connection.execute("PRAGMA page_size").fetchone()
        return int(pages * page_bytes)

    # Upkeep

    def _sweep(self) -> bool:
        assert self._store is not None, "the file is open"
        try:
            if not self._reserve.exists:
                self._reserve.create()
            return self._store.sweep(SWEEP_BUDGET)
        except Exception as error:  # noqa: BLE001 - likewise
            self._on_trouble(error)
            return False

    def _truncate_log(self) -> None:
        """Copies the write-ahead log into the database, and frees the pages that retention has emptied."""
        assert self._connection is not None, "the file is open"
        try:
            if os.stat(self._path + "-wal").st_size > TRUNCATE_BYTES:
                self._connection.execute("PRAGMA incremental_vacuum(1000)").fetchall()
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except OSError:
            pass  # There is no log.
        except sqlite3.Error as error:
            self._on_trouble(error)

    # The file

    def _open(self) -> None:
        opened = self._open_file(self._path)
        self._connection = opened.connection
        self._store = self._make_store(opened)
        advice = _OLD_LIBRARY if sqlite3.sqlite_version_info < WAL_FIX else ""
        self.events.emit(StorageOpened(self._path, f"sqlite {sqlite3.sqlite_version}", opened.is_copy, advice))

    def _close_file(self) -> None:
        connection, self._connection, self._store = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


def _apply(operations: Sequence[Operation[Any]], store: Store) -> None:
    for operation in operations:
        operation.error = None
        try:
            operation.apply(store)
        except CommandError as error:
            operation.error = error
