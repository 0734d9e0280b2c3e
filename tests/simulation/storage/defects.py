"""Defects of the SQLite engine that the simulation must find."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from beaconfire.engines.port import HistoryPage
from beaconfire.engines.sqlite import store as store_module
from beaconfire.engines.sqlite import writer as writer_module
from beaconfire.engines.sqlite.database_file import DatabaseFile
from beaconfire.engines.sqlite.operations import Operation, Publish
from beaconfire.engines.sqlite.publications import PublicationTable
from beaconfire.engines.sqlite.receipts import IdempotencyTable, ProducerTable
from beaconfire.engines.sqlite.schema import open_database
from beaconfire.engines.sqlite.store import Store
from beaconfire.engines.sqlite.streams import Stream, StreamTable
from beaconfire.engines.sqlite.transaction import Transaction
from beaconfire.engines.sqlite.writer import Writer
from beaconfire.model.position import StreamPosition
from tests.simulation.storage import world as world_module


def _answers_come_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    """Publications are announced and acknowledged before the commit."""

    def run(self: Writer, operations: Sequence[Operation[Any]]) -> None:
        store = self._store
        if store is None:
            return
        for operation in operations:
            operation.apply(store)
            if isinstance(operation, Publish):
                operation.answer()
                operation.announce()
        store.commit()

    patch.setattr(Writer, "run", run)


def _commit_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """The transaction stays open."""
    patch.setattr(Transaction, "commit", lambda self: None)


def _tops_stay_after_a_rollback(patch: pytest.MonkeyPatch) -> None:
    """The rows in memory are kept although their transaction has failed."""
    patch.setattr(StreamTable, "forget_cache", lambda self: None)


def _publications_stay_after_a_rollback(patch: pytest.MonkeyPatch) -> None:
    """Publications of a failed batch are written with the next one."""
    patch.setattr(PublicationTable, "forget_new", lambda self: None)


def _keys_stay_after_a_rollback(patch: pytest.MonkeyPatch) -> None:
    """Idempotency keys of a failed batch suppress the repetition."""
    patch.setattr(IdempotencyTable, "forget_new", lambda self: None)


def _numbers_stay_after_a_rollback(patch: pytest.MonkeyPatch) -> None:
    """Numbers of a failed batch count as taken."""
    patch.setattr(ProducerTable, "forget_cache", lambda self: None)


def _keys_are_not_written(patch: pytest.MonkeyPatch) -> None:
    """Idempotency keys are only in memory."""

    def flush(self: IdempotencyTable) -> None:
        pass

    patch.setattr(IdempotencyTable, "flush", flush)


def _numbers_are_not_written(patch: pytest.MonkeyPatch) -> None:
    """The numbers of producers are only in memory."""

    def flush(self: ProducerTable) -> None:
        self._changed = {}

    patch.setattr(ProducerTable, "flush", flush)


def _rows_are_not_written(patch: pytest.MonkeyPatch) -> None:
    """The tops of streams are only in memory."""

    def flush(self: StreamTable, now_s: float) -> None:
        self._changed = []

    patch.setattr(StreamTable, "flush", flush)


def _numbers_have_a_transaction_of_their_own(patch: pytest.MonkeyPatch) -> None:
    """The number of a producer is committed before its publication."""

    def flush(self: Store) -> None:
        self._producers.flush()
        self._transaction.commit()
        self._publications.flush()
        self._keys.flush()
        self._streams.flush(self._unix_s())

    patch.setattr(Store, "_flush", flush)


def _keys_have_a_transaction_of_their_own(patch: pytest.MonkeyPatch) -> None:
    """A key is committed after its publication."""

    def flush(self: Store) -> None:
        self._publications.flush()
        self._producers.flush()
        self._streams.flush(self._unix_s())
        self._transaction.commit()
        self._keys.flush()

    patch.setattr(Store, "_flush", flush)


def _failed_commit_counts_as_success(patch: pytest.MonkeyPatch) -> None:
    """An error of the commit is ignored."""
    commit = Transaction.commit

    def ignore(self: Transaction) -> None:
        try:
            commit(self)
        except sqlite3.Error:
            self.rollback()

    patch.setattr(Transaction, "commit", ignore)


def _error_says_that_the_disk_is_full(patch: pytest.MonkeyPatch) -> None:
    """An I/O error, whose outcome is not known, is answered as a full disk, which says that nothing was published."""
    patch.setattr(writer_module, "primary_code", lambda error: sqlite3.SQLITE_FULL)


def _broken_file_stays_open(patch: pytest.MonkeyPatch) -> None:
    """After an I/O error the connection goes on, with what it believes about the file."""

    def keep(self: DatabaseFile) -> None:
        pass

    patch.setattr(DatabaseFile, "close", keep)
    patch.setattr(StreamTable, "forget_cache", lambda self: None)


def _full_disk_is_for_ever(patch: pytest.MonkeyPatch) -> None:
    """Nothing tries a full disk again."""

    def heal(self: Writer) -> None:
        pass

    patch.setattr(Writer, "_heal", heal)


def _copy_keeps_the_epoch(patch: pytest.MonkeyPatch) -> None:
    """A copy goes on with the epoch of the original."""
    patch.setattr(world_module, "open_database", lambda path: replace(open_database(path), generation=1))


def _copy_continues_everything(patch: pytest.MonkeyPatch) -> None:
    """Positions of the original continue in the copy, also those that the copy does not share."""

    def shared_offset(self: Stream, epoch: str) -> int | None:
        return self.top

    patch.setattr(Stream, "shared_offset", shared_offset)


def _copy_continues_nothing(patch: pytest.MonkeyPatch) -> None:
    """Positions of the original do not continue in the copy, although the copy shares their past."""

    def shared_offset(self: Stream, epoch: str) -> int | None:
        return self.top if epoch in ("", self.epoch) else None

    patch.setattr(Stream, "shared_offset", shared_offset)


def _retention_takes_one_more(patch: pytest.MonkeyPatch) -> None:
    """Removal below an offset also removes the publication at this offset."""
    remove_below = PublicationTable.remove_below
    patch.setattr(
        PublicationTable,
        "remove_below",
        lambda self, stream, offset, count: remove_below(self, stream, offset + 1, count),
    )


def _removed_publications_come_back(patch: pytest.MonkeyPatch) -> None:
    """A removal is not written."""

    def clear(self: Store, channel: str) -> None:
        pass

    patch.setattr(Store, "clear", clear)


def _size_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """A history keeps more than its size."""

    def append(self: Stream, options: Any, now_s: float) -> int:
        self.top += 1
        self.newest_expires_s = now_s + options.ttl_s
        return self.top

    patch.setattr(Stream, "append", append)


def _expired_are_not_swept_but_skipped(patch: pytest.MonkeyPatch) -> None:
    """The sweep moves the oldest offset beyond the publications that are alive."""
    oldest_alive = PublicationTable.oldest_alive

    def skip(self: PublicationTable, stream: Stream, now_s: float) -> tuple[int, float]:
        offset, expires_s = oldest_alive(self, stream, now_s)
        return min(offset + 1, stream.top + 1), expires_s

    patch.setattr(PublicationTable, "oldest_alive", skip)


def _pages_always_continue(patch: pytest.MonkeyPatch) -> None:
    """A page continues although publications before it have been removed."""
    patch.setattr(store_module, "_continues", lambda stream, since, oldest, reverse: True)


def _pages_are_read_before_the_batch(patch: pytest.MonkeyPatch) -> None:
    """The position of a page is from before the batch, its publications are from after it."""
    read = Store.read

    def read_with_old_position(self: Store, *arguments: Any) -> HistoryPage:
        page = read(self, *arguments)
        return replace(page, position=StreamPosition(max(0, page.position.offset - 1), page.position.epoch))

    patch.setattr(Store, "read", read_with_old_position)


DEFECTS: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    _answers_come_before_the_commit,
    _commit_is_forgotten,
    _tops_stay_after_a_rollback,
    _publications_stay_after_a_rollback,
    _keys_stay_after_a_rollback,
    _numbers_stay_after_a_rollback,
    _keys_are_not_written,
    _numbers_are_not_written,
    _rows_are_not_written,
    _numbers_have_a_transaction_of_their_own,
    _keys_have_a_transaction_of_their_own,
    _failed_commit_counts_as_success,
    _error_says_that_the_disk_is_full,
    _broken_file_stays_open,
    _full_disk_is_for_ever,
    _copy_keeps_the_epoch,
    _copy_continues_everything,
    _copy_continues_nothing,
    _retention_takes_one_more,
    _removed_publications_come_back,
    _size_is_ignored,
    _expired_are_not_swept_but_skipped,
    _pages_always_continue,
    _pages_are_read_before_the_batch,
)
