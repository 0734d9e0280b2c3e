"""The database file with its lock and its reserve: opening, closing, and the work that concerns the file as a whole."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from typing import Final

from beaconfire.base.errors import StorageUnusable
from beaconfire.engines.sqlite.file_lock import FileLock, Session
from beaconfire.engines.sqlite.reserve import RESERVE_BYTES, START_BYTES, ReserveFile
from beaconfire.engines.sqlite.schema import (
    Opened,
    begin_session,
    check_pages,
    open_database,
    unusable,
    write_meta,
)

TRUNCATE_BYTES: Final = 1024 * 1024
"""A write-ahead log above this size is emptied when there is nothing to do."""

_LOG_SUFFIX: Final = "-wal"
"""What SQLite appends to the name of the file for the write-ahead log."""


class DatabaseFile:
    """One process has the file from `lock` to `unlock`. In between, the connection may be closed and opened again.

    The first `open` begins a session, and `end_session` ends it in an orderly way.
    """

    def __init__(self, path: str, open_file: Callable[[str], Opened] = open_database) -> None:
        """`open_file` is another function in tests of failures."""
        self.path = path
        self._open_file = open_file
        self._lock: FileLock | None = None
        self._reserve = ReserveFile(path)
        self._connection: sqlite3.Connection | None = None
        self._in_session = False
        self._had_log = False
        """Whether the file had a write-ahead log before the session."""
        self.is_lean = False
        """Whether free pages of the file replace a part of the reserve. Then `keep_reserve` must follow each batch."""

    def lock(self) -> None:
        """Raises StorageUnusable, which says what to do."""
        self.path = os.path.realpath(self.path)  # As SQLite does: with all links the same lock, log and reserve.
        self._reserve = ReserveFile(self.path)
        try:
            self._lock = FileLock(self.path)
        except OSError as error:
            raise StorageUnusable(
                self.path,
                f"cannot be used: {error.strerror}. Check that the folder exists and that this user may write to it, "
                "or change engine.path",
            ) from error
        self._in_session = False
        self._had_log = os.path.exists(self.path + _LOG_SUFFIX)

    def unlock(self) -> None:
        """Closes the file, and gives it free. Idempotent."""
        self.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def open(self, is_suspect: bool = False) -> Opened:
        """Raises StorageUnusable.

        `is_suspect` tells whether the file was damaged. Then all pages are checked, and the file counts as a copy,
        because a backup may have taken its place.
        """
        try:
            opened = self._open(is_suspect)
        except StorageUnusable:
            if not self._reserve.bytes:
                raise
            self._reserve.release()  # The disk may be full, and opening the file needs room.
            opened = self._open(is_suspect)
        self._connection = opened.connection
        return opened

    def _open(self, is_suspect: bool) -> Opened:
        lock = self._locked()
        opened = self._open_file(self.path)
        try:
            if is_suspect:
                check_pages(opened.connection)
            if is_suspect or not self._in_session or opened.session != lock.session.number:
                last = Session(-1) if is_suspect else lock.session
                opened = begin_session(opened, last, self._had_log or self._in_session)
        except sqlite3.Error as error:
            opened.connection.close()
            lock.record(Session(-1))  # Whatever the next start finds is not known to be the last session's.
            raise unusable(self.path, error) from error
        self._in_session = True
        lock.record(Session(opened.session))
        return opened

    def end_session(self) -> None:
        """Empties the write-ahead log, if the disk has room, and closes the file in an orderly way."""
        lock = self._locked()
        session = lock.session
        with contextlib.suppress(sqlite3.Error):
            write_meta(self._connected(), session=session.number + 1)
            session = Session(session.number + 1, closed=True)
        with contextlib.suppress(sqlite3.Error):
            self.empty_log()
        self.close()
        lock.record(session)
        # If the disk is full, others may take what is left, so that the next start would have no room.
        self._reserve.create(room_bytes=0) or self._reserve.create(START_BYTES, room_bytes=0)

    def close(self) -> None:
        """Closes the connection, if it is open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def empty_log(self, bytes_min: int = 0) -> None:
        """Copies the write-ahead log into the database, if the log is larger. Raises sqlite3.Error."""
        try:
            size = os.stat(self.path + _LOG_SUFFIX).st_size
        except OSError:
            return  # There is no log.
        if size > bytes_min:
            self._connected().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def release_reserve(self) -> None:
        """Gives the space of the reserve back to the disk."""
        self._reserve.release()

    def take_reserve(self) -> bool:
        """Takes space for the next time that the disk is full. False if the disk has no room for it. Raises
        sqlite3.Error.

        The write-ahead log fits into the reserve, or into pages of the file that retention has freed, or into both
        together.
        """
        if self._reserve.create():
            self.is_lean = False
            return True
        free_bytes = self._free_bytes()
        self.is_lean = free_bytes > 0 and self._reserve.create(max(RESERVE_BYTES - free_bytes, 1))
        return self.is_lean

    def keep_reserve(self) -> bool:
        """Takes as much space as publications have taken free pages. Otherwise like `take_reserve`."""
        return self._reserve.create(max(RESERVE_BYTES - self._free_bytes(), 1))

    def try_write(self) -> None:
        """Commits a change. Raises sqlite3.Error."""
        self._connected().execute("UPDATE meta SET value = value + 1 WHERE name = 'probe'")

    def _free_bytes(self) -> int:
        connection = self._connected()
        (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        return int(pages * page_bytes)

    def _connected(self) -> sqlite3.Connection:
        assert self._connection is not None, "the file is open"
        return self._connection

    def _locked(self) -> FileLock:
        assert self._lock is not None, "this process has the lock"
        return self._lock
