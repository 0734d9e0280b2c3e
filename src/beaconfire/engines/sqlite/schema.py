"""The tables of the database file, and how the file is opened.

`publications` is a table without row ids, so the publications of a stream are next to each other on disk, in the order
of their offsets. Times are Unix times in seconds, because they outlive the process.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from beaconfire.base.errors import StorageUnusable
from beaconfire.engines.sqlite.file_lock import Session

APPLICATION_ID: Final = 0x42464331
"""Marks the file as Beaconfire's, for `file` and for other programs (`PRAGMA application_id`)."""

SCHEMA_VERSION: Final = 1

CHECKPOINT_PAGES: Final = 700
"""From this length on, 2.8 MB, SQLite copies its write-ahead log into the database after a commit. The log with one
more batch is smaller than the reserve file, so on a full disk the reserve has room for the whole log."""

CHECKED_BYTES_MAX: Final = 128 * 1024 * 1024
"""A file up to this size is read and checked when it is opened, in a fraction of a second. Damage in a larger one is
found when it is read."""

FOREIGN: Final = "is a database of another program: set engine.path to another file"

READ_ONLY: Final = "cannot be written: check the permissions of the file and of its folder"

_INTEGER_MAX: Final = 2**63 - 1

WAL_FIX: Final = (3, 51, 3)
"""Older versions of SQLite may lose commits if a second connection writes or checkpoints at the same instant
(https://sqlite.org/wal.html, "WAL-reset bug"). Beaconfire itself has one connection; other programs may have more."""

_SCHEMA: Final = f"""
PRAGMA journal_mode = WAL;
BEGIN IMMEDIATE;
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value NOT NULL
) WITHOUT ROWID;
CREATE TABLE streams (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT UNIQUE,
    epoch TEXT NOT NULL,
    generation INTEGER NOT NULL,
    ancestors TEXT NOT NULL,
    top INTEGER NOT NULL,
    oldest INTEGER NOT NULL,
    floor INTEGER NOT NULL,
    version INTEGER NOT NULL,
    version_epoch TEXT NOT NULL,
    newest_expires_s REAL NOT NULL,
    expires_s REAL NOT NULL,
    due_s REAL NOT NULL
);
CREATE INDEX streams_due ON streams (due_s);
CREATE TABLE publications (
    stream INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    expires_s REAL NOT NULL,
    data BLOB NOT NULL,
    extra BLOB,
    PRIMARY KEY (stream, offset)
) WITHOUT ROWID;
CREATE TABLE idempotency_keys (
    channel TEXT NOT NULL,
    key TEXT NOT NULL,
    offset INTEGER NOT NULL,
    epoch TEXT NOT NULL,
    expires_s REAL NOT NULL,
    UNIQUE (channel, key)
);
CREATE TABLE producers (
    stream INTEGER NOT NULL,
    name TEXT NOT NULL,
    last INTEGER NOT NULL,
    epoch TEXT NOT NULL,
    receipts BLOB NOT NULL,
    used INTEGER NOT NULL,
    PRIMARY KEY (stream, name)
) WITHOUT ROWID;
INSERT INTO meta VALUES ('generation', 1), ('inode', 0), ('session', 0), ('probe', 0);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


class Opened(Struct, frozen=True):
    """An open database. `generation` rises each time that the file turns out to be a copy of another one; `is_copy`
    tells whether this was such a time. `session` is the number of the last session that the file has seen, see
    `Session`; 0 if there was none."""

    connection: sqlite3.Connection
    generation: int
    is_copy: bool
    session: int


def open_database(path: str) -> Opened:
    """Opens the file, or creates it. The connection may be used in any thread, by one thread at a time.

    A copy is recognized by its inode, and by its session if it has got the inode of the original (`begin_session`).
    Raises StorageUnusable if the file is damaged, not a database of Beaconfire, or of a later version. The file is not
    changed then.
    """
    check_file(path)
    try:
        with contextlib.suppress(OSError):  # SQLite names the reason.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite would let everybody read it.
        connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise unusable(path, error) from error
    try:
        _check_or_create(path, connection)
        if os.path.getsize(path) <= CHECKED_BYTES_MAX:
            check_pages(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute("PRAGMA cache_size = -65536")
        return _check_inode(path, connection)
    except sqlite3.Error as error:
        connection.close()
        raise unusable(path, error) from error
    except OSError as error:
        connection.close()
        raise StorageUnusable(path, f"cannot be used ({error.strerror}): check the disk and the folder") from error
    except BaseException:
        connection.close()
        raise


def check_file(path: str) -> None:
    """Raises StorageUnusable for an existing file that SQLite would open, and must not: it is read-only, or belongs to
    another program. Changes nothing, in contrast to SQLite, which copies the log of a killed program into its file."""
    if not os.path.isfile(path):
        return
    if not os.access(path, os.R_OK | os.W_OK):
        raise StorageUnusable(path, READ_ONLY)
    address = f"{Path(path).absolute().as_uri()}?mode=ro&immutable=1"  # Without the log: the file itself suffices.
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            application, tables = _identify(connection)
    except sqlite3.Error:
        return  # Opening the file in earnest names the reason.
    if tables and application != APPLICATION_ID:
        raise StorageUnusable(path, FOREIGN)


def _identify(connection: sqlite3.Connection) -> tuple[int, int]:
    """The id of the application, and the number of tables."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return application, tables


def check_pages(connection: sqlite3.Connection) -> None:
    """Reads the whole file: about 1 GB per second if it is in memory. Raises sqlite3.Error if it is damaged."""
    (problem,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if problem != "ok":
        error = sqlite3.DatabaseError(problem)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def begin_session(opened: Opened, last: Session, had_log: bool) -> Opened:
    """Gives the file the number of a new session, and checks whether it is the file of the `last` one.

    If not, a backup was put in its place. So it was if the last session was not closed and there was no log: a process
    that was killed leaves its log behind. A false alarm is harmless: positions up to now stay recoverable. On a full
    disk the last session goes on. Raises sqlite3.Error.
    """
    is_last = last.number == opened.session and (last.closed or had_log)
    is_copy = opened.is_copy or (opened.session > 0 and not is_last)
    generation = opened.generation + (is_copy and not opened.is_copy)
    session = opened.session + 1
    try:
        write_meta(opened.connection, generation=generation, session=session)
    except sqlite3.OperationalError as error:
        if generation != opened.generation or primary_code(error) != sqlite3.SQLITE_FULL:
            raise
        return opened
    return replace(opened, generation=generation, is_copy=is_copy, session=session)


def write_meta(connection: sqlite3.Connection, **values: int) -> None:
    """As one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for item in values.items():
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", item)
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_or_create(path: str, connection: sqlite3.Connection) -> None:
    application, tables = _identify(connection)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if not tables:
        connection.executescript(_SCHEMA)
    elif application != APPLICATION_ID:
        raise StorageUnusable(path, FOREIGN)
    elif version > SCHEMA_VERSION:
        raise StorageUnusable(
            path,
            f"was written by a later version of Beaconfire (schema {version}, this one knows {SCHEMA_VERSION}): "
            "install that version, or set engine.path to another file",
        )
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StorageUnusable(
            path,
            f"is on a file system without what SQLite needs for a write-ahead log (journal mode {mode!r}): set "
            "engine.path to a file on a local disk",
        )


def _check_inode(path: str, connection: sqlite3.Connection) -> Opened:
    values = dict(connection.execute("SELECT name, value FROM meta").fetchall())
    generation, known, inode = int(values["generation"]), int(values["inode"]), os.stat(path).st_ino & _INTEGER_MAX
    is_copy = known not in (0, inode)
    if known != inode:
        generation += is_copy
        write_meta(connection, generation=generation, inode=inode)
    return Opened(connection, generation, is_copy, int(values.get("session", 0)))


def unusable(path: str, error: sqlite3.Error) -> StorageUnusable:
    """Why the file cannot be used, and what to do."""
    match primary_code(error):
        case sqlite3.SQLITE_NOTADB:
            text = "is not a SQLite database: set engine.path to another file"
        case sqlite3.SQLITE_CORRUPT:
            text = (
                f"is damaged ({error}). Keep a copy. Then restore a backup, or save what can be read with "
                f'"sqlite3 {path} .recover", or move the file away to start with an empty one'
            )
        case sqlite3.SQLITE_CANTOPEN:
            folder = os.path.dirname(os.path.abspath(path))
            if os.path.isdir(folder):
                text = "cannot be opened: check that it is a file, and that this user may write to it and to its folder"
            else:
                text = f"cannot be created, because there is no folder {folder!r}: create it, or change engine.path"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            text = READ_ONLY
        case sqlite3.SQLITE_FULL:
            text = "cannot be written, because the disk is full: free some space"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            text = "is locked by another program that writes to it: end that program"
        case _:
            text = f"cannot be used ({type(error).__name__}: {error}): check the disk and the folder"
    return StorageUnusable(path, text)


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's result code without the extension (https://sqlite.org/rescode.html); 0 if the error has none."""
    code: int = getattr(error, "sqlite_errorcode", None) or 0
    return code & 0xFF
