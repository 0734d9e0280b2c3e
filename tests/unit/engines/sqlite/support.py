"""A writer on a file, and operations whose answers a test reads. No thread, no event loop."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from beaconfire.base.clock import ManualClock
from beaconfire.engines.port import HistoryOptions, HistoryPage, PublishOptions, PublishOutcome
from beaconfire.engines.sqlite.database_file import DatabaseFile
from beaconfire.engines.sqlite.operations import Clear, Operation, Publish, Read
from beaconfire.engines.sqlite.schema import Opened, open_database
from beaconfire.engines.sqlite.store import Store
from beaconfire.engines.sqlite.writer import Writer
from beaconfire.model.position import StreamPosition
from tests.fakes.events import EventRecorder
from tests.simulation.storage.faults import Faults, FaultyConnection

HISTORY = HistoryOptions(size=100, ttl_s=60.0, meta_ttl_s=600.0, durability="disk")
KEPT = PublishOptions(history=HISTORY)


class Answer:
    """Implements what operations need of a future."""

    def __init__(self) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_done = False

    def done(self) -> bool:
        return self.is_done

    def set_result(self, result: Any) -> None:
        self.result, self.is_done = result, True

    def set_exception(self, error: BaseException) -> None:
        self.error, self.is_done = error, True

    def get(self) -> Any:
        assert self.is_done, "there is no answer"
        if self.error is not None:
            raise self.error
        return self.result


class Process:
    """The part of a process that owns the file. Another one on the same file continues after `end`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.events = EventRecorder()
        self.faults = Faults()
        self.attached: set[str] = set()
        self.announced: list[tuple[str, int]] = []
        self._epochs = 0
        self.writer = Writer(DatabaseFile(str(path), self._open_file), self._make_store, self.clock.now_s)
        self.writer.events = self.events

    def start(self) -> Process:
        self.writer.open()
        return self

    def end(self) -> None:
        self.writer.close()

    def is_up(self) -> bool:
        return self.writer.state.up

    @property
    def connection(self) -> sqlite3.Connection:
        connection: Any = self.writer._file._connection
        real: sqlite3.Connection = connection.real
        return real

    @property
    def store(self) -> Store:
        assert self.writer._store is not None, "the file is open"
        return self.writer._store

    def run(self, *operations: Operation[Any]) -> None:
        """One batch."""
        self.writer.run(operations)
        for operation in operations:
            operation.answer()
            operation.announce()

    def publish(self, channel: str, data: bytes = b"{}", options: PublishOptions = KEPT) -> PublishOutcome:
        operation, answer = self.publication(channel, data, options)
        self.run(operation)
        outcome: PublishOutcome = answer.get().outcome
        return outcome

    def publication(self, channel: str, data: bytes = b"{}", options: PublishOptions = KEPT) -> tuple[Publish, Answer]:
        answer: Any = Answer()

        def announce(channel: str, published: Any, options: PublishOptions) -> None:
            self.announced.append((channel, published.publication.offset))

        return Publish(answer, channel, Raw(data), options, None, None, announce), answer

    def page(self, channel: str, since: StreamPosition | None = None, reverse: bool = False) -> HistoryPage:
        answer: Any = Answer()
        self.run(Read(answer, channel, HISTORY, -1, since, reverse))
        page: HistoryPage = answer.get()
        return page

    def offsets(self, channel: str) -> list[int]:
        return [publication.offset for publication in self.page(channel).publications]

    def clear(self, channel: str) -> None:
        answer: Any = Answer()
        self.run(Clear(answer, channel))
        answer.get()

    def count(self, table: str) -> int:
        (number,) = self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(number)

    def sweep(self) -> None:
        """All slices of retention."""
        while self.store.sweep(1000):
            pass

    def _make_store(self, opened: Opened) -> Store:
        return Store(opened, self.clock.unix_s, self._new_epoch, self.attached.__contains__)

    def _open_file(self, path: str) -> Opened:
        opened = open_database(path)
        connection: Any = FaultyConnection(opened.connection, self.faults)
        return replace(opened, connection=connection)

    def _new_epoch(self) -> str:
        self._epochs += 1
        return f"{id(self)}-{self._epochs}"
