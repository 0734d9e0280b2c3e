"""The state machine of the database file: what each operation does to it. Synchronous, and without threads.

A batch is a number of operations, then `commit`. Nothing that an operation returned is true before `commit` returns. If
anything raises `sqlite3.Error`, the caller calls `rollback`, and no operation of the batch has taken effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Raw, Struct

from beaconfire.engines.port import Durability, HistoryPage, PublishOptions, PublishOutcome
from beaconfire.engines.sqlite.images import ImageTable
from beaconfire.engines.sqlite.publications import PublicationTable
from beaconfire.engines.sqlite.receipts import IdempotencyTable, ProducerTable
from beaconfire.engines.sqlite.schema import Opened
from beaconfire.engines.sqlite.streams import Stream, StreamTable
from beaconfire.engines.sqlite.transaction import Transaction
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication

DISK: Final[Durability] = "disk"

SWEPT_STREAMS_MAX: Final = 64
"""How many streams one `sweep` looks at."""

SWEEP_AGAIN_S: Final = 5.0
"""How long retention leaves a stream alone after it has removed expired publications. Readers never get those."""


class Published(Struct, frozen=True):
    """The result of a publish. `publication` is to be announced after the commit; None if it is suppressed."""

    outcome: PublishOutcome
    publication: Publication | None = None


class Store:
    """All times come from `unix_s`. See `StreamTable` for the other arguments."""

    def __init__(
        self,
        opened: Opened,
        unix_s: Callable[[], float],
        new_epoch: Callable[[], str],
        is_attached: Callable[[str], bool],
    ) -> None:
        self._unix_s = unix_s
        self._transaction = Transaction(opened.connection)
        self._streams = StreamTable(self._transaction, opened.generation, new_epoch, is_attached)
        self._publications = PublicationTable(self._transaction)
        self._keys = IdempotencyTable(self._transaction)
        self._producers = ProducerTable(self._transaction)
        self.images = ImageTable(self._streams, self._publications, self._keys, self._producers, unix_s)

    def freeze(self, is_frozen: bool) -> None:
        """Whether reading must not write. Operations that must write fail then, if the disk has no room."""
        self._streams.is_frozen = is_frozen

    # Operations

    def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None,
        tags: Mapping[str, str] | None,
    ) -> Published:
        """See `Broker.publish`. Raises OutOfSequence, without any effect."""
        now_s, history = self._unix_s(), options.history
        producer, key = options.producer, options.idempotency_key
        if producer:
            receipt = self._producers.receipt(self._streams.find(channel, now_s), producer, options.seq)
            if receipt is not None:
                return Published(PublishOutcome(receipt, "producer", DISK))
        first = self._keys.find(channel, key, now_s) if key else None
        stream = self._streams.get_or_create(channel, history.meta_ttl_s, now_s)
        publication = None
        if first is not None:
            outcome = PublishOutcome(first, "idempotency", DISK)
        elif options.version > 0 and not stream.advance_version(options.version, options.version_epoch):
            outcome = PublishOutcome(stream.position, "version", DISK)
        else:
            publication = self._append(stream, data, options, info, tags, now_s)
            outcome = PublishOutcome(stream.position, "", DISK)
        if key and first is None:
            self._keys.store(channel, key, outcome.position, now_s)
        if producer:
            self._producers.take(stream, producer, outcome.position)
        return Published(outcome, publication)

    def use(self, channel: str, meta_ttl_s: float) -> StreamPosition:
        """The position of the stream, which is created if there is none, and kept for at least `meta_ttl_s`."""
        return self._streams.get_or_create(channel, meta_ttl_s, self._unix_s()).position

    def clear(self, channel: str) -> None:
        """Removes the publications of the channel and keeps the position."""
        now_s = self._unix_s()
        stream = self._streams.find(channel, now_s)
        if stream is not None and stream.oldest <= stream.top:
            stream.oldest = stream.top + 1
            stream.due_s = now_s
            self._streams.mark_changed(stream)

    def read(
        self, channel: str, meta_ttl_s: float, limit: int, since: StreamPosition | None, reverse: bool
    ) -> HistoryPage:
        """See `Broker.history`. Only after `commit`, because this reads the file."""
        now_s = self._unix_s()
        stream = self._streams.get_or_create(channel, meta_ttl_s, now_s)
        oldest, _ = self._publications.oldest_alive(stream, now_s)
        first, last = oldest, stream.top
        if since is not None and reverse:
            last = min(last, since.offset - 1)
        elif since is not None:
            first = max(first, since.offset + 1)
        return HistoryPage(
            self._publications.read(stream, first, last, limit, reverse),
            stream.position,
            since is None or _continues(stream, since, oldest, reverse),
        )

    # Transactions

    def commit(self) -> None:
        """Writes the batch. When this returns, all of it is on disk."""
        self._flush()
        self._transaction.commit()
        self._streams.shrink_cache()
        self._producers.shrink_cache()

    def rollback(self) -> None:
        """Undoes the batch. The file is the truth again. Raises sqlite3.Error if the file cannot be used any more."""
        self._publications.forget_new()
        self._keys.forget_new()
        self._streams.forget_cache()
        self._producers.forget_cache()
        self._transaction.rollback()

    def sweep(self, budget: int) -> bool:
        """Removes at most `budget` expired publications, and what belongs to expired streams, as one batch of its own.

        True if more remains.
        """
        now_s = self._unix_s()
        due = list(self._streams.due(now_s, SWEPT_STREAMS_MAX))
        left = budget
        for stream in due:
            left -= self._sweep_stream(stream, now_s, left)
            if left <= 0:
                break
        more_keys = self._keys.remove_expired(now_s, budget)
        self.commit()
        return more_keys or left <= 0 or len(due) == SWEPT_STREAMS_MAX

    # Helpers

    def _append(
        self,
        stream: Stream,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None,
        tags: Mapping[str, str] | None,
        now_s: float,
    ) -> Publication:
        expires_s = now_s + options.history.ttl_s
        if stream.has_publications(now_s) and expires_s < stream.newest_expires_s:
            self._publications.expire_no_later(stream, expires_s)
        offset = stream.append(options.history, now_s)
        self._publications.append(stream, expires_s, data, info, tags)
        self._streams.mark_changed(stream)
        return Publication(data, info, offset, dict(tags) if tags else None, stream.epoch if offset == 1 else "")

    def _flush(self) -> None:
        self._publications.flush()
        self._keys.flush()
        self._producers.flush()
        self._streams.flush(self._unix_s())  # Last, because the others change rows of streams.

    def _sweep_stream(self, stream: Stream, now_s: float, budget: int) -> int:
        """Removes what has expired. Returns how much of the budget this took."""
        oldest, expires_s = self._publications.oldest_alive(stream, now_s)
        if stream.channel is None:
            oldest = stream.top + 1
        stream.oldest = oldest
        removed = self._publications.remove_below(stream, oldest, budget)
        if stream.floor < oldest:
            self._streams.mark_changed(stream)  # It stays due.
        elif oldest > stream.top and (stream.channel is None or self._streams.has_expired(stream, now_s)):
            self._producers.remove_all(stream)
            self._streams.remove(stream)
        else:
            stream.due_s = max(expires_s or stream.expires_s, now_s + SWEEP_AGAIN_S)
            self._streams.mark_changed(stream)
        return removed + 1


def _continues(stream: Stream, since: StreamPosition, oldest: int, reverse: bool) -> bool:
    """See `HistoryPage.continues`."""
    shared = stream.shared_offset(since.epoch)
    return shared is not None and (reverse or oldest - 1 <= since.offset <= shared)
