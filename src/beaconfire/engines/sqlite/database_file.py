"""The database file with its lock and its reserve: opening, closing, and the work that concerns the file as a whole."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from typing import Final

from beaconfire.base.errors import StorageUnusable
from beaconfire.engines.sqlite.file_lock import FileLock
from beaconfire.engines.sqlite.reserve import RESERVE_BYTES, ReserveFile
from beaconfire.engines.sqlite.schema import Opened, open_database

TRUNCATE_BYTES: Final = 1024 * 1024
"""A write-ahead log above this size is emptied when there is nothing to do."""


class DatabaseFile:
    """One process has the file from `lock` to `unlock`. In between, the connection may be closed and opened again."""

    def __init__(self, path: str, open_file: Callable[[str], Opened] = open_database) -> None:
        """`open_file` is another function in tests of failures."""
        self.path = path
        self._open_file = open_file
        self._lock: FileLock | None = None
        self._reserve = ReserveFile(path)
        self._connection: sqlite3.Connection | None = None

    def lock(self) -> None:
        """Raises StorageUnusable, which says what to do."""
        try:
            self._lock = FileLock(self.path)
        except OSError as error:
            raise StorageUnusable(
                self.path,
                f"cannot be used: {error.strerror}. Check that the folder exists and that this user may write to it, "
                "or change engine.path",
            ) from error

    def unlock(self) -> None:
        """Closes the file, and gives it free. Idempotent."""
        self.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def open(self) -> Opened:
        """Raises StorageUnusable."""
        opened = self._open_file(self.path)
        self._connection = opened.connection
        return opened

    def close(self) -> None:
        """Closes the connection, if it is open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def empty_log(self, bytes_min: int = 0) -> None:
        """Copies the write-ahead log into the database, if the log is larger. Raises sqlite3.Error."""
        try:
            size = os.stat(self.path + "-wal").st_size
        except OSError:
            return  # There is no log.
        if size > bytes_min:
            self._connected().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def release_reserve(self) -> None:
        """Gives the space of the reserve back to the disk."""
        self._reserve.release()

    def take_reserve(self) -> bool:
        """Takes space for the next time that the disk is full. False if the disk has no room for it."""
        return self._reserve.exists or self._reserve.create()

    def has_room(self) -> bool:
        """Whether retention has freed as much within the file as the reserve would have. Raises sqlite3.Error."""
        connection = self._connected()
        (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        return int(pages * page_bytes) >= RESERVE_BYTES

    def try_write(self) -> None:
        """Commits a change. Raises sqlite3.Error."""
        self._connected().execute("UPDATE meta SET value = value + 1 WHERE name = 'probe'")

    def _connected(self) -> sqlite3.Connection:
        assert self._connection is not None, "the file is open"
        return self._connection
