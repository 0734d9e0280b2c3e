"""The lock and the reserve next to the database."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from beaconfire.base.errors import StorageUnusable
from beaconfire.engines.sqlite.file_lock import FileLock
from beaconfire.engines.sqlite.reserve import RESERVE_BYTES, START_BYTES, ReserveFile
from tests.unit.engines.sqlite.support import Process


def test_a_second_process_is_refused_and_the_holder_is_named(path: Path) -> None:
    """Until the first one releases the lock."""
    lock = FileLock(str(path))
    with pytest.raises(StorageUnusable, match=f"process {os.getpid()} on "):
        FileLock(str(path))
    lock.release()
    FileLock(str(path)).release()


def test_the_file_of_a_dead_process_does_not_lock(path: Path) -> None:
    """Only the kernel's lock counts. Afterwards the file names the new holder."""
    Path(f"{path}.lock").write_text("process 1 on a machine with a long name, long enough to be cut\n")
    lock = FileLock(str(path))
    assert Path(f"{path}.lock").read_text().startswith(f"process {os.getpid()} on ")
    assert Path(f"{path}.lock").read_text().count("\n") == 1
    lock.release()


def test_a_writer_that_cannot_open_gives_the_lock_back(path: Path) -> None:
    """Another attempt is not refused because of the first one."""
    path.write_text("no database, but long enough for a header " * 10)
    with pytest.raises(StorageUnusable):
        Process(path).start()
    FileLock(str(path)).release()


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    """The lock is the first file that cannot be made."""
    with pytest.raises(StorageUnusable, match=r"Check that the folder exists"):
        Process(tmp_path / "none" / "history.db").start()


def test_the_reserve_takes_space_until_it_is_released(path: Path) -> None:
    """Blocks of the disk, not only a size. Both calls may be repeated."""
    reserve = ReserveFile(str(path))
    assert not reserve.bytes
    assert reserve.create()
    assert reserve.create()
    assert os.stat(f"{path}.reserve").st_blocks * 512 >= RESERVE_BYTES
    reserve.release()
    reserve.release()
    assert not reserve.bytes


def test_no_room_for_the_reserve_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file that looks like a reserve and has no space."""

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    reserve = ReserveFile(str(path))
    assert not reserve.create()
    assert not reserve.bytes
    assert not ReserveFile(f"{path.parent}/none/history.db").create()


def test_an_empty_log_is_left_behind(start: Callable[[], Process], path: Path) -> None:
    """After an orderly end everything is in the database file itself."""
    process = start()
    process.publish("a")
    process.end()
    process.end()
    assert not Path(f"{path}-wal").exists()


def test_a_reserve_that_cannot_grow_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is taken already is not given up."""
    reserve = ReserveFile(str(path))
    assert reserve.create(4096, room_bytes=0)

    def refuse(descriptor: int, offset: int, size: int) -> None:
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert not reserve.create()
    assert reserve.bytes == 4096
    assert reserve.create(4096)


def test_all_links_to_a_file_have_one_lock(path: Path) -> None:
    """SQLite follows links as well, so its log is beside the file itself."""
    process = Process(path).start()
    link = path.with_name("link.db")
    link.symlink_to(path)
    with pytest.raises(StorageUnusable, match="is in use by process"):
        Process(link).start()
    assert not Path(f"{link}.lock").exists()
    process.end()


def test_an_orderly_end_leaves_room_for_the_next_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk has no room for a whole reserve, then at least for opening the file."""
    process = Process(path).start()
    os.unlink(f"{path}.reserve")
    allocate = os.posix_fallocate

    def limit(descriptor: int, offset: int, size: int) -> None:
        if size > RESERVE_BYTES // 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(descriptor, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", limit)
    process.end()
    assert ReserveFile(str(path)).bytes == START_BYTES
