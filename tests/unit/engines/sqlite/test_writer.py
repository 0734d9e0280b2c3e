"""What the writer does in trouble, and how it gets out of it."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from beaconfire.base.errors import EngineUnavailable, StorageFull
from beaconfire.engines.sqlite import database_file
from beaconfire.engines.sqlite import writer as writer_module
from beaconfire.engines.sqlite.operations import Ping, Positions, Read
from beaconfire.engines.sqlite.reserve import RESERVE_BYTES, ROOM_BYTES, ReserveFile
from beaconfire.model.events import InternalError, StorageOpened
from tests.unit.engines.sqlite.support import HISTORY, KEPT, Answer, Process


def heal(process: Process) -> None:
    process.clock.advance(1.0)
    process.writer.maintain(idle=True)


def test_a_full_disk_refuses_publications_and_heals(start: Callable[[], Process]) -> None:
    """Reading goes on. The error is typed, and the state names the file."""
    process = start()
    process.publish("a")
    process.faults.disk_full = True
    with pytest.raises(StorageFull, match="is full: nothing was published"):
        process.publish("a")
    with pytest.raises(StorageFull):
        process.publish("a")
    process.clock.advance(0.4)
    process.page("a")
    assert process.offsets("a") == [1]
    assert not process.is_up()
    assert str(process.path) in process.writer.state.detail
    heal(process)
    assert not process.is_up()
    process.faults.disk_full = False
    process.writer.maintain(idle=True)
    assert not process.is_up(), "not tried again so soon"
    heal(process)
    assert process.is_up()
    assert process.publish("a").position.offset == 2


def test_reading_needs_no_room(start: Callable[[], Process]) -> None:
    """Even if the use of the position would be written: it is written later."""
    process = start()
    epoch = process.publish("a").position.epoch
    process.faults.disk_full = True
    with pytest.raises(StorageFull):
        process.publish("a")
    process.clock.advance(500.0)
    assert process.page("a").position.epoch == epoch
    process.faults.disk_full = False
    heal(process)
    process.clock.advance(500.0)
    assert process.page("a").position.epoch == epoch


def test_a_new_stream_needs_room(start: Callable[[], Process]) -> None:
    """The first reader of a channel without a stream gets the typed error, until there is room."""
    process = start()
    process.faults.disk_full = True
    for _ in range(2):
        with pytest.raises(StorageFull):
            process.page("new")
    process.faults.disk_full = False
    heal(process)
    assert process.page("new").position.offset == 0


def test_the_whole_batch_of_a_full_disk_is_refused(start: Callable[[], Process]) -> None:
    """Nothing of the batch is stored or announced."""
    process = start()
    process.faults.plan("full", 3, after=False)
    batch = [process.publication("a") for _ in range(3)]
    process.run(*(operation for operation, _ in batch))
    for _, answer in batch:
        with pytest.raises(StorageFull):
            answer.get()
    assert process.announced == []
    heal(process)
    assert process.offsets("a") == []
    assert process.publish("a").position.offset == 1


def test_a_disk_without_room_for_the_reserve_counts_as_full(
    start: Callable[[], Process], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the start on, until there is room for it and for something more."""
    with monkeypatch.context() as patch:
        patch.setattr(ReserveFile, "create", lambda self: False)
        process = start()
        with pytest.raises(StorageFull):
            process.publish("a")
        heal(process)
        assert not process.is_up()
        assert not os.path.exists(f"{path}.reserve")
    heal(process)
    assert process.is_up()
    assert os.path.getsize(f"{path}.reserve") == RESERVE_BYTES
    assert process.publish("a").position.offset == 1


def limit_disk(patch: pytest.MonkeyPatch, bytes_max: int) -> None:
    """From now on no file can take more than this many bytes at once."""
    allocate = os.posix_fallocate

    def limited(descriptor: int, offset: int, size: int) -> None:
        if size > bytes_max:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(descriptor, offset, size)

    patch.setattr(os, "posix_fallocate", limited)


def fill_and_expire(process: Process, count: int) -> None:
    """Publishes 2 KB each in one channel, and lets all of them expire."""
    options = replace(KEPT, history=replace(HISTORY, size=10_000))
    batch = [process.publication("large", b"." * 2000, options)[0] for _ in range(count)]
    process.run(*batch)
    process.clock.advance(70.0)


def test_pages_that_retention_has_freed_count_as_room(
    start: Callable[[], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log needs the reserve, or free pages of the file, or both together. What publications take of the free pages
    is added to the reserve; if the disk has no room for it, the disk is full."""
    process = start()
    fill_and_expire(process, 900)
    process.faults.disk_full = True
    with pytest.raises(StorageFull):
        process.publish("a")
    process.faults.disk_full = False
    limit_disk(monkeypatch, RESERVE_BYTES // 2 + ROOM_BYTES)
    for _ in range(8):
        heal(process)
    assert process.count("publications") == 0
    assert process.is_up()
    reserve = ReserveFile(str(process.path))
    before = reserve.bytes
    assert 0 < before < RESERVE_BYTES // 2
    process.publish("a", b"." * 500_000)
    assert process.is_up()
    assert reserve.bytes > before + 400_000
    for _ in range(4):
        with contextlib.suppress(StorageFull):
            process.publish("a", b"." * 500_000)
    assert not process.is_up()
    assert process.offsets("a")[0] == 1


def test_a_reserve_that_is_lost_makes_the_disk_full(
    start: Callable[[], Process], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the disk could become full for ever. So this is noticed before the disk is really full."""
    process = start()
    process.publish("a")
    os.unlink(f"{path}.reserve")
    limit_disk(monkeypatch, 0)
    heal(process)
    assert "is full" in process.writer.state.detail
    assert process.offsets("a") == [1]


def test_a_read_in_the_batch_of_a_full_disk_succeeds(start: Callable[[], Process]) -> None:
    """Only the publications of the batch are refused."""
    process = start()
    process.publish("a")
    operation, refused = process.publication("a")
    reading: Any = Answer()
    process.faults.disk_full = True
    process.run(operation, Read(reading, "a", HISTORY, -1, None, False))
    with pytest.raises(StorageFull):
        refused.get()
    assert [publication.offset for publication in reading.get().publications] == [1]


def test_the_reserve_is_made_again_when_there_is_room(start: Callable[[], Process], path: Path) -> None:
    """Retention looks for it."""
    process = start()
    os.unlink(f"{path}.reserve")
    heal(process)
    assert os.path.exists(f"{path}.reserve")


def test_after_an_io_error_the_file_is_opened_again(start: Callable[[], Process]) -> None:
    """Everything is refused until then, and nothing that was acknowledged is lost."""
    process = start()
    process.publish("a")
    process.faults.plan("io", 1, after=False)
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match="disk I/O error"):
            process.publish("a")
    with pytest.raises(EngineUnavailable):
        process.page("a")
    assert not process.is_up()
    heal(process)
    assert process.is_up()
    assert process.offsets("a") == [1]
    assert process.publish("a").position.offset == 2
    assert [type(event) for event in process.events.events] == [StorageOpened, StorageOpened]


def test_an_io_error_after_the_commit_leaves_the_outcome_unknown(start: Callable[[], Process]) -> None:
    """The publication is stored, and the caller learns only that the outcome is not known. Keys and numbers help."""
    process = start()
    numbered = replace(KEPT, producer="p", seq=1)
    operation, answer = process.publication("a", options=numbered)
    process.publish("b")
    process.faults.plan("io", 6, after=True)
    process.run(operation)
    with pytest.raises(EngineUnavailable):
        answer.get()
    heal(process)
    repeated = process.publish("a", options=numbered)
    assert repeated.position.offset == 1


def test_a_file_that_cannot_be_opened_is_tried_again(start: Callable[[], Process], path: Path) -> None:
    """The state says why it cannot be opened."""
    process = start()
    process.publish("a")
    process.faults.plan("io", 0, after=False)
    with pytest.raises(EngineUnavailable):
        process.publish("a")
    moved = path.rename(path.with_name("moved.db"))
    path.mkdir()
    heal(process)
    assert "check that it is a file" in process.writer.state.detail
    path.rmdir()
    moved.rename(path)
    heal(process)
    assert process.offsets("a") == [1]


def test_an_error_while_healing_is_trouble_as_well(start: Callable[[], Process]) -> None:
    """A full disk that then fails."""
    process = start()
    process.faults.plan("full", 0, after=False)
    with pytest.raises(StorageFull):
        process.publish("a")
    process.faults.plan("io", 2, after=False)
    heal(process)
    assert "disk I/O error" in process.writer.state.detail
    heal(process)
    assert process.is_up()


def test_a_damaged_file_is_used_again_only_after_a_check(
    start: Callable[[], Process], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that cannot be read looks the same. Until all pages can be read, the state says how to save the data.

    The file may have been replaced by a backup meanwhile, so it counts as a copy.
    """
    process = start()
    epoch = process.publish("a").position.epoch
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT

    def damaged(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(process.store, "use", damaged)
    with pytest.raises(EngineUnavailable, match="is damaged"):
        process.page("a")
    with monkeypatch.context() as patch:
        patch.setattr(database_file, "check_pages", damaged)
        for _ in range(12):
            heal(process)
            assert ".recover" in process.writer.state.detail
    for _ in range(5):
        heal(process)
    assert process.is_up()
    page = process.page("a")
    assert ([publication.offset for publication in page.publications], page.position.epoch != epoch) == ([1], True)
    opened = [event for event in process.events.events if isinstance(event, StorageOpened)]
    assert [event.is_copy for event in opened] == [False, True]


def test_a_defect_fails_only_its_own_operation(start: Callable[[], Process]) -> None:
    """A name that SQLite cannot encode, for example. The others of the batch take effect; the defect is reported."""
    process = start()
    process.events.expects_errors = True
    batch = [process.publication(channel) for channel in ("a", "\ud800", "a")]
    process.run(*(operation for operation, _ in batch))
    assert [batch[index][1].get().outcome.position.offset for index in (0, 2)] == [1, 2]
    with pytest.raises(EngineUnavailable, match="UnicodeEncodeError"):
        batch[1][1].get()
    assert process.announced == [("a", 1), ("a", 2)]
    assert process.is_up()
    assert InternalError in [type(event) for event in process.events.events]


def test_an_error_while_reading_fails_only_the_reads(start: Callable[[], Process]) -> None:
    """The batch is committed before."""
    process = start()
    process.publish("a")
    operation, answer = process.publication("a")
    reading: Any = Answer()
    read = Read(reading, "a", HISTORY, -1, None, False)
    process.faults.plan("io", 4, after=False)
    process.run(operation, read)
    assert answer.get().outcome.position.offset == 2
    with pytest.raises(EngineUnavailable):
        reading.get()


def test_the_log_is_emptied_when_nothing_happens(
    start: Callable[[], Process], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while operations wait. An error is trouble as usual."""
    monkeypatch.setattr(writer_module, "TRUNCATE_BYTES", 0)
    process = start()
    process.publish("a")
    process.writer.maintain(idle=True)  # The first retention.
    process.writer.maintain(idle=False)
    assert os.path.getsize(f"{path}-wal") > 0
    process.writer.maintain(idle=True)
    assert os.path.getsize(f"{path}-wal") == 0
    process.publish("a")
    process.faults.plan("io", 0, after=False)
    process.writer.maintain(idle=True)
    assert not process.is_up()
    heal(process)
    assert process.offsets("a") == [1, 2]


def test_retention_runs_at_intervals_and_survives_trouble(start: Callable[[], Process]) -> None:
    """It goes on after the file was opened again."""
    process = start()
    process.publish("a")
    process.clock.advance(61.0)
    process.faults.plan("io", 0, after=False)
    assert not process.writer.maintain(idle=True)
    assert not process.is_up()
    heal(process)
    heal(process)
    assert process.count("publications") == 0


def test_positions_and_pings_are_operations(start: Callable[[], Process]) -> None:
    """They run in batches like all others."""
    process = start()
    epoch = process.publish("a").position.epoch
    answer: Any = Answer()
    process.run(Ping(answer), Positions(positions := Answer(), {"a": HISTORY}))  # type: ignore[arg-type]
    assert answer.get() is None
    assert positions.get() == {"a": (1, epoch)}
