"""A backup that takes the place of the database counts as a copy, even if it gets the inode of the database."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from beaconfire.base.errors import StorageUnusable
from beaconfire.engines.sqlite import database_file, schema
from beaconfire.engines.sqlite.file_lock import FileLock, Session
from beaconfire.model.events import StorageOpened
from tests.simulation.storage.faults import sqlite_error
from tests.unit.engines.sqlite.support import Process


def counted_as_copy(process: Process) -> bool:
    return [event.is_copy for event in process.events.events if isinstance(event, StorageOpened)][-1]


def kill(process: Process) -> None:
    """The process ends without closing the file. The files stay as they are."""
    path = process.path
    files = {suffix: Path(f"{path}{suffix}").read_bytes() for suffix in ("", "-wal")}
    process.connection.close()
    for suffix, content in files.items():
        Path(f"{path}{suffix}").write_bytes(content)
    assert process.writer._file._lock is not None
    process.writer._file._lock.release()


def back_up(path: Path) -> bytes:
    copy = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy.read_bytes()


def test_a_restart_continues(path: Path) -> None:
    """After an orderly end as well as after a kill."""
    for _ in range(2):
        first = Process(path).start()
        epoch = first.publish("a").position.epoch
        first.end()
        second = Process(path).start()
        assert second.publish("a").position.epoch == epoch
        assert not counted_as_copy(second)
        kill(second)
        third = Process(path).start()
        assert third.publish("a").position.epoch == epoch
        assert not counted_as_copy(third)
        third.end()


@pytest.mark.parametrize("end", [Process.end, kill])
def test_a_backup_with_the_inode_of_the_database_is_a_copy(path: Path, end: Callable[[Process], None]) -> None:
    """The database had gone on after the backup, with the same epoch. What both share can be recovered."""
    process = Process(path).start()
    process.publish("a")
    shared = process.publish("a").position
    backup = back_up(path)
    beyond = process.publish("a").position
    end(process)
    Path(f"{path}-wal").unlink(missing_ok=True)
    path.write_bytes(backup)
    restored = Process(path).start()
    assert counted_as_copy(restored)
    assert restored.publish("a").position.epoch != shared.epoch
    assert restored.page("a", since=shared).continues
    assert not restored.page("a", since=beyond).continues
    restored.end()


def test_a_backup_of_an_earlier_session_is_a_copy(path: Path) -> None:
    """Also beside a log, which belongs to the database that was there before."""
    first = Process(path).start()
    first.publish("a")
    first.end()
    backup = path.read_bytes()
    second = Process(path).start()
    kill(second)
    path.write_bytes(backup)
    Path(f"{path}-wal").write_bytes(b"")
    third = Process(path).start()
    assert counted_as_copy(third)
    third.end()


def test_a_file_without_its_record_is_a_copy(path: Path) -> None:
    """The lock file has the record."""
    first = Process(path).start()
    first.publish("a")
    first.end()
    Path(f"{path}.lock").unlink()
    second = Process(path).start()
    assert counted_as_copy(second)
    second.end()


def test_a_full_disk_continues_the_session(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number cannot be written then. The server starts nevertheless, unless the file is a copy."""
    first = Process(path).start()
    epoch = first.publish("a").position.epoch
    first.end()

    def refuse(*arguments: object, **values: object) -> None:
        raise sqlite_error("database or disk is full", full=True)

    with monkeypatch.context() as patch:
        patch.setattr(schema, "write_meta", refuse)
        second = Process(path).start()
        assert second.page("a").position.epoch == epoch
        assert not counted_as_copy(second)
        kill(second)
        Path(f"{path}-wal").unlink()
        with pytest.raises(StorageUnusable, match="the disk is full"):
            Process(path).start()
    third = Process(path).start()
    assert counted_as_copy(third)
    third.end()


def test_the_reserve_helps_to_open_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk, opening the file needs room."""
    Process(path).start().end()
    reserve = Path(f"{path}.reserve")
    begin_session = schema.begin_session

    def need_room(*arguments: object) -> object:
        if reserve.exists():
            raise sqlite_error("database or disk is full", full=True)
        return begin_session(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(database_file, "begin_session", need_room)
    process = Process(path).start()
    assert process.publish("a").position.offset == 1
    process.end()
    assert reserve.exists()


def test_the_lock_file_records_the_session(path: Path) -> None:
    """A record that was cut off, or is of no session, counts as none."""
    lock = FileLock(str(path))
    assert lock.session == Session(-1)
    lock.record(Session(7))
    lock.release()
    lock = FileLock(str(path))
    assert lock.session == Session(7)
    lock.record(Session(8, closed=True))
    lock.release()
    lock = FileLock(str(path))
    assert lock.session == Session(8, closed=True)
    lock.release()
    shutil.copy("/dev/null", f"{path}.lock")
    lock = FileLock(str(path))
    assert lock.session == Session(-1)
    lock.release()


def test_a_record_that_cannot_be_written_counts_as_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk, for example. The next process sees a copy, which is harmless."""
    lock = FileLock(str(path))
    lock.record(Session(7))

    def refuse(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        lock.record(Session(8))
    lock.release()
    lock = FileLock(str(path))
    assert lock.session == Session(-1)
    lock.release()
