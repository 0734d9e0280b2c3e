"""A simulated process with the SQLite engine's state machine on a real file, which ends and fails at any step.

The thread of the writer and the event loop are steps of the simulation: operations are submitted, run in batches, and
finish. The process may end between any two calls of SQLite, before and after the commit, and before the answers arrive.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import tempfile
from collections.abc import Callable
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import CommandError, EngineUnavailable, OutOfSequence, StorageFull
from beaconfire.engines.port import IDEMPOTENCY_TTL_S, HistoryOptions, HistoryPage, PublishOptions
from beaconfire.engines.sqlite.database_file import DatabaseFile
from beaconfire.engines.sqlite.operations import Clear, Operation, Publish, Read
from beaconfire.engines.sqlite.schema import Opened, open_database
from beaconfire.engines.sqlite.store import Published, Store
from beaconfire.engines.sqlite.writer import Writer
from beaconfire.model.position import StreamPosition
from tests.simulation.broken_guarantee import BrokenGuarantee
from tests.simulation.storage.faults import Crash, Fault, Faults, FaultyConnection
from tests.simulation.storage.model import Attempt, ChannelModel

SHARED_MEMORY = "/dev/shm"
"""A process that ends loses nothing that it wrote, so a file in memory serves as well, and is faster."""

LARGE = HistoryOptions(size=10_000, ttl_s=1e6, meta_ttl_s=1e7, durability="disk")
SMALL = HistoryOptions(size=5, ttl_s=300.0, meta_ttl_s=1e7, durability="disk")


class Answer:
    """Implements what operations need of a future."""

    def __init__(self, on_answer: Callable[[Any, BaseException | None], None]) -> None:
        self._on_answer = on_answer
        self._done = False

    def done(self) -> bool:
        return self._done

    def set_result(self, result: Any) -> None:
        self._done = True
        self._on_answer(result, None)

    def set_exception(self, error: BaseException) -> None:
        self._done = True
        self._on_answer(None, error)


class World:
    """Implements the steps. `close` at the end, also after a failure."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = ManualClock()
        self.faults = Faults()
        self.folder = tempfile.TemporaryDirectory(dir=SHARED_MEMORY if os.path.isdir(SHARED_MEMORY) else None)
        self.files = 1
        self.epochs = 0
        self.payloads = 0
        self.attempts: list[Attempt] = []
        self.waiting: list[Operation[Any]] = []
        self.finished: list[Operation[Any]] = []
        self.channels = {
            "large": ChannelModel("large", LARGE),
            "small": ChannelModel("small", SMALL),
        }
        self.taken = dict.fromkeys(("p", "q"), 0)
        """The last number of each producer in `large` that was acknowledged."""
        self.backup: tuple[str, dict[str, StreamPosition | None], dict[str, int], dict[str, int]] | None = None
        """The path of a copy, with the positions, the removed offsets and the numbers of producers at that time."""
        self.writer = self._start()

    @property
    def path(self) -> str:
        return f"{self.folder.name}/{self.files}.db"

    def close(self) -> None:
        self.writer.close()
        self.folder.cleanup()

    # Steps

    def publish(self) -> None:
        """Submits a publish with some of the options that make repetition harmless."""
        name = self.rng.choice(("large", "large", "small"))
        self.payloads += 1
        attempt = Attempt(name, b'"%d"' % self.payloads, self.clock.now_s())
        options = PublishOptions(history=self.channels[name].options)
        if name == "large" and self.rng.random() < 0.5:
            attempt.producer = self.rng.choice(("p", "q"))
            attempt.seq = max(1, self.taken[attempt.producer] + self.rng.choice((0, 1, 1, 1, 2)))
            options = replace(options, producer=attempt.producer, seq=attempt.seq)
        elif self.rng.random() < 0.4:
            attempt.key = f"k{self.rng.randrange(8)}"
            options = replace(options, idempotency_key=attempt.key)
        self.attempts.append(attempt)
        answer: Any = Answer(lambda result, error: self._on_published(attempt, result, error))
        operation = Publish(answer, name, Raw(attempt.payload), options, None, None, self._on_announced)
        if self.writer.refusal is not None:
            self._on_published(attempt, None, self.writer.refusal())
        else:
            self.waiting.append(operation)

    def read(self) -> None:
        """Submits a read of everything after some position, or of everything."""
        channel = self.channels[self.rng.choice(("large", "small"))]
        known = [StreamPosition(self.rng.randrange(max(channel.content, default=0) + 2), channel.epoch)]
        known += [StreamPosition(each.offset + self.rng.randrange(-2, 3), each.epoch) for each in channel.ancestors]
        since = self.rng.choice(known)
        self.read_after(channel, None if since.offset < 0 or not since.epoch else since)

    def read_after(self, channel: ChannelModel, since: StreamPosition | None) -> None:
        """Submits a read of everything after this position."""

        clears = channel.clears

        def on_answer(page: HistoryPage | None, error: BaseException | None) -> None:
            if page is not None:
                sees_clears = clears == channel.clears and not any(isinstance(each, Clear) for each in self.waiting)
                channel.check_page(page, since, self.clock.now_s(), sees_clears)

        answer: Any = Answer(on_answer)
        self.waiting.append(Read(answer, channel.name, channel.options, -1, since, False))

    def clear(self) -> None:
        """Submits the removal of the publications of one channel."""
        channel = self.channels["small"]
        channel.clears += 1
        channel.is_clear_unknown = True
        before = max(channel.content, default=0)

        def on_answer(result: None, error: BaseException | None) -> None:
            channel.clears += 1
            channel.is_clear_unknown = True
            if error is None:
                channel.cleared = max(channel.cleared, before)

        answer: Any = Answer(on_answer)
        self.waiting.append(Clear(answer, channel.name))

    def run_batch(self) -> None:
        """The writer runs some of the operations. Their answers wait."""
        was_up = self.writer.refusal is None
        count = self.rng.randrange(1, 9)
        batch, self.waiting = self.waiting[:count], self.waiting[count:]
        faults = self.faults.struck
        if batch and self._on_thread(lambda: self.writer.run(batch)):
            self.finished += batch
            if faults == self.faults.struck and self.writer.refusal is not None and was_up:
                raise BrokenGuarantee(f"trouble without a fault: {self.writer.state.detail}")

    def finish(self) -> None:
        """The event loop hands over the answers."""
        finished, self.finished = self.finished, []
        for operation in finished:
            operation.answer()
        for operation in finished:
            operation.announce()

    def maintain(self) -> None:
        self._on_thread(lambda: self.writer.maintain(idle=not self.waiting))

    def advance(self) -> None:
        self.clock.advance(self.rng.choice((0.6, 1.1, 8.0, 60.0)))

    def plan_fault(self) -> None:
        kinds: tuple[Fault, ...] = ("crash", "crash", "full", "io")
        kind = self.rng.choice(kinds)
        self.faults.plan(kind, self.rng.randrange(14), after=kind != "full" and self.rng.random() < 0.5)

    def fill_disk(self) -> None:
        self.faults.disk_full = not self.faults.disk_full

    def crash(self) -> None:
        """The process ends: answers that are under way are lost. Another one starts, and everything is read."""
        connection: Any = self.writer._file._connection
        if not self.writer.state.up:  # The use of an empty stream was perhaps not written, so its position may expire.
            for channel in self.channels.values():
                channel.epoch = channel.epoch if channel.content else ""
        keeper = sqlite3.connect(self.path)
        keeper.execute("SELECT name FROM meta").fetchall()  # Keeps the write-ahead log, which a killed process leaves.
        lock = self.writer._file._lock
        assert lock is not None, "the writer has the lock"
        if connection is not None:
            connection.real.rollback()  # As the next process would.
            connection.real.close()
        else:  # The log is gone, so the next process would see a copy, which the model does not expect.
            lock.record(replace(lock.session, closed=True))
        lock.release()
        for attempt in self.attempts:
            attempt.outcome = attempt.outcome or "unknown"
        self.waiting, self.finished = [], []
        self.faults.clear()
        self.writer = self._start()
        keeper.close()
        for channel in self.channels.values():
            channel.announced = 0

    def back_up(self) -> None:
        """Makes a copy of the file with the backup API, for a later restore."""
        connection: Any = self.writer._file._connection
        if connection is None or connection.real.in_transaction:
            return
        path = f"{self.folder.name}/copy-{self.files}.db"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with contextlib.closing(sqlite3.connect(path)) as copy:
            connection.real.backup(copy)
            tops: dict[str, StreamPosition | None] = dict.fromkeys(self.channels)
            for name, top, epoch in copy.execute("SELECT channel, top, epoch FROM streams WHERE channel IS NOT NULL"):
                tops[name] = StreamPosition(top, epoch)
            taken = dict(copy.execute("SELECT name, last FROM producers"))
        self.backup = (path, tops, {name: channel.cleared for name, channel in self.channels.items()}, taken)

    def restore(self) -> None:
        """The process ends, and another one starts with the copy."""
        if self.backup is None:
            return
        (path, tops, cleared, taken), self.backup = self.backup, None
        self.crash()
        self.writer.close()
        self.files += 1
        os.rename(path, self.path)
        self.writer = self._start()
        for name, channel in self.channels.items():
            channel.fork(tops[name], cleared[name])
        self.taken = {name: taken.get(name, 0) for name in self.taken}
        self.attempts = [each for each in self.attempts if self._is_in_copy(each, tops[each.channel])]

    def settle(self) -> None:
        """All faults end; everything is answered and read."""
        self.faults.clear()
        for _ in range(8):
            self.clock.advance(1.0)
            self.maintain()
        if not self.writer.state.up:
            raise BrokenGuarantee(f"does not heal: {self.writer.state.detail}")
        for channel in self.channels.values():
            self.read_after(channel, None)
        while self.waiting:
            self.run_batch()
        self.finish()
        self._check_repetitions()

    # Answers

    def _on_announced(self, name: str, published: Published, options: PublishOptions) -> None:
        publication, position = published.publication, published.outcome.position
        assert publication is not None, "only publications are announced"
        self._check_stored(name, publication.offset, bytes(publication.data), options.history)
        self.channels[name].check_announcement(publication, position.epoch, publication.offset - 1, self.clock.now_s())

    def _on_published(self, attempt: Attempt, published: Published | None, error: BaseException | None) -> None:
        if isinstance(error, OutOfSequence):
            attempt.outcome = "refused"
            self._check_expected(attempt, error)
        elif isinstance(error, StorageFull):
            attempt.outcome = "refused"
        elif isinstance(error, EngineUnavailable):
            attempt.outcome = "unknown"
        elif error is not None:
            raise BrokenGuarantee(f"unexpected: {error!r}")
        else:
            assert published is not None, "either a result or an error"
            attempt.outcome = published.outcome.suppressed or "stored"
            attempt.position = published.outcome.position
            if attempt.producer:
                self.taken[attempt.producer] = max(self.taken[attempt.producer], attempt.seq)
            if attempt.outcome == "stored":
                channel = self.channels[attempt.channel]
                channel.learn(attempt.position.offset, attempt.payload, self.clock.now_s())

    def _check_stored(self, name: str, offset: int, payload: bytes, options: HistoryOptions) -> None:
        """What is announced or acknowledged is in the file, whatever happens to the process."""
        with contextlib.closing(sqlite3.connect(self.path)) as other:
            row = other.execute(
                "SELECT data, top FROM streams LEFT JOIN publications ON stream = id AND offset = ? WHERE channel = ?",
                (offset, name),
            ).fetchone()
        if row is None or row[1] < offset or (row[0] != payload and row[0] is not None):
            raise BrokenGuarantee(f"{name}: {offset} is announced, but the file has {row}")

    def _check_expected(self, attempt: Attempt, error: OutOfSequence) -> None:
        taken = self.taken[attempt.producer]
        tried = max((each.seq for each in self.attempts if each.producer == attempt.producer), default=0)
        if not taken < error.expected <= tried + 1:
            raise BrokenGuarantee(
                f"{attempt.producer}: expected {error.expected}, {taken} was taken, {tried} was tried"
            )

    def _check_repetitions(self) -> None:
        """In the channel that keeps everything: each number and each key of five minutes was published once."""
        channel = self.channels["large"]
        by_payload = {attempt.payload: attempt for attempt in self.attempts if attempt.channel == channel.name}
        numbers: dict[str, list[int]] = {"p": [], "q": []}
        keys: dict[str, Attempt] = {}
        for offset in sorted(channel.content):
            attempt = by_payload.get(channel.content[offset][0])
            if attempt is None:
                continue
            if attempt.outcome == "refused":
                raise BrokenGuarantee(f"{attempt} was refused, but is at {offset}")
            if attempt.producer:
                numbers[attempt.producer].append(attempt.seq)
            if attempt.key:
                first = keys.setdefault(attempt.key, attempt)
                if first is not attempt and channel.content[offset][1] < first.submitted_s + IDEMPOTENCY_TTL_S:
                    raise BrokenGuarantee(f"{attempt} at {offset} repeats {first}")
                keys[attempt.key] = attempt
            if attempt.position is not None and attempt.outcome == "stored" and attempt.position.offset != offset:
                raise BrokenGuarantee(f"{attempt} is at {offset}")
        for producer, found in numbers.items():
            if found != list(range(1, len(found) + 1)):
                raise BrokenGuarantee(f"{producer} published the numbers {found}")
        for attempt in by_payload.values():
            self._check_suppressed(attempt, list(by_payload.values()))

    def _check_suppressed(self, attempt: Attempt, all_attempts: list[Attempt]) -> None:
        """A repetition gets the position of the first publish."""
        if attempt.outcome not in ("idempotency", "producer") or attempt.position is None or not attempt.position.epoch:
            return
        payload = self.channels["large"].content.get(attempt.position.offset, (b"", 0.0))[0]
        first = next((each for each in all_attempts if each.payload == payload), None)
        if first is not None and _repeatable(first) != _repeatable(attempt):
            raise BrokenGuarantee(f"{attempt} got the position of {first}")

    @staticmethod
    def _is_in_copy(attempt: Attempt, top: StreamPosition | None) -> bool:
        """Whether the answer of this publish still counts after the restore of a copy."""
        if attempt.position is None:
            return attempt.outcome != "refused"
        return top is not None and attempt.position.offset <= top.offset

    # The process

    def _start(self) -> Writer:
        def open_file(path: str) -> Opened:
            opened = open_database(path)
            connection: Any = FaultyConnection(opened.connection, self.faults)
            return replace(opened, connection=connection)

        def make_store(opened: Opened) -> Store:
            # All channels are attached: positions without any publication do not expire.
            return Store(opened, self.clock.unix_s, self._new_epoch, lambda channel: True)

        writer = Writer(DatabaseFile(self.path, open_file), make_store, self.clock.now_s)
        writer.open()
        return writer

    def _new_epoch(self) -> str:
        self.epochs += 1
        return f"epoch{self.epochs}"

    def _on_thread(self, work: Callable[[], object]) -> bool:
        """False if the process has ended meanwhile."""
        try:
            work()
        except Crash:
            self.crash()
            return False
        return True


def _repeatable(attempt: Attempt) -> tuple[object, ...]:
    return attempt.key, attempt.producer, attempt.seq


def simulate(seed: int, steps: int = 120) -> None:
    """One run. A failure names the seed."""
    world = World(seed)
    choices: list[tuple[Callable[[], None], int]] = [
        (world.publish, 40),
        (world.read, 6),
        (world.clear, 1),
        (world.run_batch, 16),
        (world.finish, 10),
        (world.maintain, 6),
        (world.advance, 5),
        (world.plan_fault, 4),
        (world.fill_disk, 1),
        (world.crash, 1),
        (world.back_up, 1),
        (world.restore, 1),
    ]
    actions, weights = zip(*choices, strict=True)
    try:
        for _ in range(steps):
            world.rng.choices(actions, weights)[0]()
        world.settle()
    except BrokenGuarantee as failure:
        raise BrokenGuarantee(f"seed {seed}: {failure}") from failure
    except CommandError as failure:
        failure.add_note(f"seed {seed}")
        raise
    except Exception as failure:
        failure.add_note(f"seed {seed}")
        raise
    finally:
        world.close()
