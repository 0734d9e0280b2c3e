"""The tables of the database file, and how the file is opened.

`publications` is a table without row ids, so the publications of a stream are next to each other on disk, in the order
of their offsets. Times are Unix times in seconds, because they outlive the process.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import Final

from msgspec import Struct

from beaconfire.base.errors import StorageUnusable

APPLICATION_ID: Final = 0x42464331
"""Marks the file as Beaconfire's, for `file` and for other programs (`PRAGMA application_id`)."""

SCHEMA_VERSION: Final = 1

CHECKPOINT_PAGES: Final = 700
"""From this length on, 2.8 MB, SQLite copies its write-ahead log into the database after a commit. The log with one
more batch is smaller than the reserve file, so on a full disk the reserve has room for the whole log."""

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
INSERT INTO meta VALUES ('generation', 1), ('inode', 0), ('probe', 0);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


class Opened(Struct, frozen=True):
    """An open database. `generation` rises each time that the file turns out to be a copy of another one; `is_copy`
    tells whether this was such a time."""

    connection: sqlite3.Connection
    generation: int
    is_copy: bool


def open_database(path: str) -> Opened:
    """Opens the file, or creates it. The connection may be used in any thread, by one thread at a time.

    A copy is recognized by its inode, however it was made: with the backup API, with `cp`, or by restoring a backup.
    Raises StorageUnusable if the file is damaged, not a database of Beaconfire, or of a later version. The file is not
    changed then.
    """
    try:
        with contextlib.suppress(OSError):  # SQLite names the reason.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite would let everybody read it.
        connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise unusable(path, error) from error
    try:
        _check_or_create(path, connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute("PRAGMA cache_size = -65536")
        return _check_copy(path, connection)
    except sqlite3.Error as error:
        connection.close()
        raise unusable(path, error) from error
    except BaseException:
        connection.close()
        raise


def _check_or_create(path: str, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not tables:
        connection.executescript(_SCHEMA)
    elif application != APPLICATION_ID:
        raise StorageUnusable(path, "is a database of another program: set engine.path to another file")
    elif version > SCHEMA_VERSION:
        raise StorageUnusable(
            path,
            f"was written by a later version of Beaconfire (schema {version}, this one knows {SCHEMA_VERSION}): "
            "install that version, or set engine.path to another file",
        )


def _check_copy(path: str, connection: sqlite3.Connection) -> Opened:
    values = dict(connection.execute("SELECT name, value FROM meta").fetchall())
    generation, known, inode = int(values["generation"]), int(values["inode"]), os.stat(path).st_ino & _INTEGER_MAX
    is_copy = known not in (0, inode)
    if known != inode:
        generation += is_copy
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "UPDATE meta SET value = ? WHERE name = ?", [(generation, "generation"), (inode, "inode")]
        )
        connection.execute("COMMIT")
    return Opened(connection, generation, is_copy)


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
            text = "cannot be written: check the permissions of the file and of its folder"
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
