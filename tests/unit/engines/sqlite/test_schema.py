"""How the file is opened, and which files are refused."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from beaconfire.base.errors import StorageUnusable
from beaconfire.engines.sqlite import schema as schema_module
from beaconfire.engines.sqlite.schema import SCHEMA_VERSION, open_database


def reason(path: Path) -> str:
    """Why the file is refused. The file must not change."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StorageUnusable) as refused:
        open_database(str(path))
    assert refused.value.path == str(path)
    assert (path.read_bytes() if path.is_file() else None) == before
    return refused.value.problem


def test_only_the_owner_may_read_a_new_file(path: Path) -> None:
    """A history may be confidential. The log of SQLite has the same mode."""
    with closing(open_database(str(path)).connection) as connection:
        connection.execute("UPDATE meta SET value = 1 WHERE name = 'probe'")
        for file in (path, Path(f"{path}-wal")):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_commit_waits_for_the_disk(path: Path) -> None:
    """`synchronous` is FULL (2), and the journal is a write-ahead log."""
    with closing(open_database(str(path)).connection) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_copy_starts_a_new_generation(path: Path) -> None:
    """A file that was opened before, and moved, does not. A copy of the copy does so again."""
    open_database(str(path)).connection.close()
    opened = open_database(str(path))
    opened.connection.close()
    assert (opened.generation, opened.is_copy) == (1, False)
    moved = path.rename(path.with_name("moved.db"))
    opened = open_database(str(moved))
    opened.connection.close()
    assert (opened.generation, opened.is_copy) == (1, False)
    for generation in (2, 3):
        copy = moved.with_name(f"copy-{generation}.db")
        shutil.copy(moved, copy)
        opened = open_database(str(copy))
        opened.connection.close()
        assert (opened.generation, opened.is_copy) == (generation, True)
        moved = copy


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    """A text, for example."""
    path.write_text("a text of somebody, long enough to be read as the header of a database " * 10)
    assert "is not a SQLite database" in reason(path)


def test_a_database_of_another_program_is_refused(path: Path) -> None:
    """It has other tables, and no mark of Beaconfire."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE accounts (name TEXT)")
    assert "another program" in reason(path)


def test_the_log_of_another_program_stays(path: Path) -> None:
    """SQLite would copy the log of a program that was killed into its file."""
    source = path.with_name("source.db")
    with closing(sqlite3.connect(source)) as connection:
        connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE accounts (name TEXT)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.executescript("INSERT INTO accounts VALUES ('a')")
        for suffix in ("", "-wal"):
            shutil.copy(f"{source}{suffix}", f"{path}{suffix}")
    log = Path(f"{path}-wal").read_bytes()
    assert "another program" in reason(path)
    assert Path(f"{path}-wal").read_bytes() == log


def test_a_file_system_without_write_ahead_logs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite falls back to another journal without an error. A database in memory is such a case."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageUnusable, match="journal mode 'memory'"):
        open_database(":memory:")


def test_a_read_only_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite would open the file for reading."""
    open_database(str(path)).connection.close()
    monkeypatch.setattr(os, "access", lambda *arguments: False)  # A superuser may write to every file.
    assert "cannot be written: check the permissions" in reason(path)


def test_an_error_of_the_file_system_is_a_clear_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not come from SQLite, for example because the file was removed meanwhile."""

    def fail(name: str) -> int:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)

    monkeypatch.setattr(os.path, "getsize", fail)
    with pytest.raises(StorageUnusable, match="No such file or directory"):
        open_database(str(path))


def test_a_damaged_page_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the file is so large that the check would take long."""
    with closing(open_database(str(path)).connection) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[-4096:] = b"\xff" * 4096
    path.write_bytes(content)
    assert "is damaged" in reason(path)
    monkeypatch.setattr(schema_module, "CHECKED_BYTES_MAX", 4096)
    open_database(str(path)).connection.close()


def test_a_later_schema_is_refused(path: Path) -> None:
    """An older version of the program must not write to it."""
    with closing(open_database(str(path)).connection) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    assert f"schema {SCHEMA_VERSION + 1}" in reason(path)


def test_a_damaged_file_is_refused(path: Path) -> None:
    """The message names ways to save the data."""
    with closing(open_database(str(path)).connection) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * 3996
    path.write_bytes(content)
    assert "is damaged" in reason(path)
    assert ".recover" in reason(path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """SQLite itself would only say that it cannot open the file."""
    assert f"there is no folder '{tmp_path}/none'" in reason(tmp_path / "none" / "history.db")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """A folder with the name of the file."""
    assert "check that it is a file" in reason(tmp_path)


def test_a_file_that_another_program_writes_is_refused(path: Path) -> None:
    """A transaction of that program is open."""
    open_database(str(path)).connection.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE meta SET value = 0 WHERE name = 'inode'")
        other.execute("BEGIN IMMEDIATE")
        assert "locked by another program" in reason(path)
