"""The streams of all channels: a table in the file, and a cache of its rows in memory.

The row in memory is the truth while the process runs; `flush` writes the rows that have changed. A position is used
more often than it changes, so its expiry is written ahead: a row is written again only when the expiry in memory passes
that in the file. After a restart a position is therefore kept up to a tenth longer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import msgspec

from beaconfire.engines.port import HistoryOptions
from beaconfire.engines.sqlite.rows import placeholders, write_rows
from beaconfire.engines.sqlite.transaction import Transaction
from beaconfire.model.position import StreamPosition

CACHED_MAX: Final = 100_000
"""How many rows stay in memory: about 60 MB."""

UNSETTLED: Final = -1
"""The generation of a stream that came from another engine, which may still be used: see `Transfer.settle`."""

OF_LOST_ORIGINAL: Final = 0
"""The generation of a stream whose original is lost. It is below that of each file, so the stream counts as a copy."""

ANCESTORS_MAX: Final = 4
"""How many earlier epochs of a stream stay recoverable."""

UNUSED_TTL_S: Final = 300.0
"""How long the position of a channel is kept if nothing was ever published and no subscriber is attached."""

_AHEAD: Final = 0.1
"""By which part of its time to live the expiry of a position is written ahead."""

_COLUMNS: Final = (
    "id, channel, epoch, generation, ancestors, top, oldest, floor, version, version_epoch, newest_expires_s, "
    "expires_s, due_s"
)


class Stream:
    """The row of one stream. A stream without a channel was replaced, and waits for its removal.

    Publications with offsets from `oldest` to `top` can be read as long as they have not expired. Those below `floor`
    are removed from the file. `newest_expires_s` is the expiry of the publication `top`. `due_s` is when retention
    looks at the stream. `ancestors` are earlier epochs with the last offset that this stream shares with each of them.
    """

    __slots__ = (
        "ancestors",
        "changed",
        "channel",
        "due_s",
        "epoch",
        "expires_s",
        "floor",
        "generation",
        "id",
        "newest_expires_s",
        "oldest",
        "producers",
        "stored_expires_s",
        "top",
        "version",
        "version_epoch",
    )

    def __init__(self, row: tuple[Any, ...]) -> None:
        self.id: int
        self.channel: str | None
        self.epoch: str
        self.generation: int
        self.top: int
        self.oldest: int
        self.floor: int
        self.version_epoch: str
        self.newest_expires_s: float
        self.expires_s: float
        self.due_s: float
        self.id, self.channel, self.epoch, self.generation, ancestors, self.top, self.oldest, self.floor = row[:8]
        version, self.version_epoch, self.newest_expires_s, self.expires_s, self.due_s = row[8:]
        self.ancestors: list[tuple[str, int]] = msgspec.json.decode(ancestors, type=list[tuple[str, int]])
        self.version = version & _U64_MAX
        self.stored_expires_s = self.expires_s
        self.producers = -1
        """The number of producers, -1 if it is not known."""
        self.changed = False

    @property
    def position(self) -> StreamPosition:
        return StreamPosition(self.top, self.epoch)

    def has_publications(self, now_s: float) -> bool:
        return self.oldest <= self.top and now_s < self.newest_expires_s

    def is_expired(self, now_s: float) -> bool:
        """Whether the position and all publications have expired."""
        return now_s >= self.expires_s and not self.has_publications(now_s)

    def shared_offset(self, epoch: str) -> int | None:
        """The last offset of this epoch that belongs to this stream as well, or None for a foreign epoch."""
        if epoch in ("", self.epoch):
            return self.top
        for ancestor, offset in self.ancestors:
            if ancestor == epoch:
                return offset
        return None

    def advance_version(self, version: int, version_epoch: str) -> bool:
        """Sets the version. False, without a change, if it is not above the last one of the same version epoch."""
        if version_epoch == self.version_epoch and version <= self.version:
            return False
        self.version = version
        self.version_epoch = version_epoch
        return True

    def append(self, options: HistoryOptions, now_s: float) -> int:
        """Moves `top` to a new publication, and applies the limits. Returns its offset."""
        self.top += 1
        self.oldest = max(self.oldest, self.top - options.size + 1)
        self.newest_expires_s = now_s + options.ttl_s
        self.expires_s = max(self.expires_s, now_s + options.meta_ttl_s)
        self.due_s = min(self.due_s, self.newest_expires_s)
        return self.top

    def changes(self, now_s: float) -> tuple[object, ...]:
        """The values of all columns. Afterwards the row counts as written."""
        if self.expires_s > self.stored_expires_s:
            self.stored_expires_s = self.expires_s + _AHEAD * (self.expires_s - now_s)
        self.changed = False
        return (
            self.id,
            self.channel,
            self.epoch,
            self.generation,
            msgspec.json.encode(self.ancestors).decode(),
            self.top,
            self.oldest,
            self.floor,
            self.version if self.version < _I64_LIMIT else self.version - _U64_MAX - 1,
            self.version_epoch,
            self.newest_expires_s,
            self.stored_expires_s,
            self.due_s,
        )


_U64_MAX: Final = 2**64 - 1
_I64_LIMIT: Final = 2**63
"""SQLite's integers have a sign, versions have none."""

_UPDATE: Final = f"INSERT INTO streams ({_COLUMNS})"
_CHANGED: Final = "ON CONFLICT (id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in _COLUMNS.split(", ")[1:]
)
"""Together an update of many rows in one statement. The rows always exist."""
_INSERT: Final = (
    "INSERT INTO streams (channel, epoch, generation, ancestors, top, oldest, floor, version, version_epoch, "
    f"newest_expires_s, expires_s, due_s) VALUES (?, ?, ?, '[]', 0, 1, 1, 0, '', 0, ?, ?) RETURNING {_COLUMNS}"
)


class StreamTable:
    """The streams by channel."""

    def __init__(
        self,
        transaction: Transaction,
        generation: int,
        new_epoch: Callable[[], str],
        is_attached: Callable[[str], bool],
    ) -> None:
        """`generation` is that of the file: streams of an earlier one get a new epoch at their next use.
        `is_attached` tells whether a channel has subscribers, and may be called in the thread of the writer."""
        self._transaction = transaction
        self._generation = generation
        self._new_epoch = new_epoch
        self._is_attached = is_attached
        self._cache: dict[str, Stream] = {}
        self._changed: list[Stream] = []
        self.follows_original = False
        """While this is true, the originals of loaded streams write each of their changes here as well."""
        self.is_frozen = False
        """While this is true, the use of a position is not written, because the disk has no room."""

    def find(self, channel: str, now_s: float) -> Stream | None:
        """The stream of the channel, or None if there is none or it has expired."""
        stream = self._load(channel)
        return None if stream is None or self.has_expired(stream, now_s) else stream

    def get_or_create(self, channel: str, meta_ttl_s: float, now_s: float) -> Stream:
        """Returns the stream of the channel, if necessary a new one, and keeps the position for at least `meta_ttl_s`.

        The position of a stream without any publication so far is kept for `UNUSED_TTL_S`, and as long as the channel
        is attached. Otherwise clients that choose channel names could fill the disk with positions for a month.
        """
        stream = self._load(channel)
        if stream is not None and self.has_expired(stream, now_s):
            self._retire(stream, now_s)
            stream = None
        if stream is None:
            return self._create(channel, now_s + min(meta_ttl_s, UNUSED_TTL_S), now_s)
        self.fork_copy(stream)
        stream.expires_s = now_s + (meta_ttl_s if stream.top else min(meta_ttl_s, UNUSED_TTL_S))
        if stream.expires_s > stream.stored_expires_s and not self.is_frozen:
            self.mark_changed(stream)
        return stream

    def has_expired(self, stream: Stream, now_s: float) -> bool:
        """Whether the stream has expired. The position of an attached channel without any publication so far is
        prolonged instead: its subscribers hold this position, and a new epoch would look like a loss to them."""
        if not stream.is_expired(now_s):
            return False
        if stream.top or stream.channel is None or not self._is_attached(stream.channel):
            return True
        stream.expires_s = now_s + UNUSED_TTL_S
        return False

    def due(self, now_s: float, limit: int) -> Iterator[Stream]:
        """Streams at which retention must look, those that are due for the longest time first."""
        rows = self._transaction.connection.execute(
            f"SELECT {_COLUMNS} FROM streams WHERE due_s <= ? ORDER BY due_s LIMIT ?",
            (now_s, limit),
        ).fetchall()
        for row in rows:
            stream = Stream(row)
            yield stream if stream.channel is None else self._cache.get(stream.channel, stream)

    def mark_changed(self, stream: Stream) -> None:
        """The row must be written by the next `flush`."""
        if not stream.changed:
            stream.changed = True
            self._changed.append(stream)

    def remove(self, stream: Stream) -> None:
        """Removes the row. The caller has removed everything that belongs to the stream."""
        self._transaction.begin().execute("DELETE FROM streams WHERE id = ?", (stream.id,))
        stream.changed = True  # So that no later call can add the stream to `_changed`.
        self._changed = [each for each in self._changed if each is not stream]
        if stream.channel is not None:
            self._cache.pop(stream.channel, None)

    def flush(self, now_s: float) -> None:
        """Writes the rows that have changed, as part of the transaction."""
        if self._changed:
            changed, self._changed = self._changed, []
            write_rows(self._transaction.begin(), _UPDATE, [stream.changes(now_s) for stream in changed], _CHANGED)

    def forget_cache(self) -> None:
        """After a transaction that was not committed: the rows in the file are the truth again."""
        self._cache.clear()
        self._changed = []

    def shrink_cache(self) -> None:
        """Between transactions: forgets the rows that were loaded first, above the limit."""
        while len(self._cache) > CACHED_MAX:
            del self._cache[next(iter(self._cache))]

    def _load(self, channel: str) -> Stream | None:
        stream = self._cache.get(channel)
        if stream is None:
            row = self._transaction.connection.execute(
                f"SELECT {_COLUMNS} FROM streams WHERE channel = ?", (channel,)
            ).fetchone()
            if row is None:
                return None
            stream = self._cache[channel] = Stream(row)
        return stream

    def _create(self, channel: str, expires_s: float, now_s: float) -> Stream:
        epoch = self._new_epoch()
        assert epoch not in ("", "_"), f"not an epoch: {epoch!r}"
        stored_s = expires_s + _AHEAD * (expires_s - now_s)
        row = (
            self._transaction.begin()
            .execute(_INSERT, (channel, epoch, self._generation, stored_s, stored_s))
            .fetchone()
        )
        stream = self._cache[channel] = Stream(row)
        stream.expires_s = expires_s
        return stream

    def _retire(self, stream: Stream, now_s: float) -> None:
        """Takes the channel from an expired stream, whose publications are removed later, in slices."""
        assert stream.channel is not None, "only streams with a channel are looked up"
        del self._cache[stream.channel]
        stream.channel = None
        stream.due_s = now_s
        self.mark_changed(stream)
        self.flush(now_s)  # Before the channel gets its new stream.

    # Streams of other engines

    def count(self) -> int:
        """How many channels have a stream."""
        (count,) = self._transaction.connection.execute("SELECT count(channel) FROM streams").fetchone()
        return int(count)

    def prefetch(self, channels: Collection[str]) -> None:
        """Reads the rows of these channels that are not in memory, with one statement."""
        missing = [channel for channel in channels if channel not in self._cache]
        rows = self._transaction.connection.execute(
            f"SELECT {_COLUMNS} FROM streams WHERE channel IN ({placeholders(missing)})", missing
        )
        for row in rows:
            stream = Stream(row)
            assert stream.channel is not None, "selected by its channel"
            self._cache[stream.channel] = stream

    def channels(self, after: str, limit: int) -> list[str]:
        """The channels after `after` that have a stream or idempotency keys, in the order of their names."""
        rows = self._transaction.connection.execute(
            "SELECT * FROM (SELECT channel FROM streams WHERE channel > ?1 ORDER BY channel LIMIT ?2) UNION "
            "SELECT * FROM (SELECT DISTINCT channel FROM idempotency_keys WHERE channel > ?1 ORDER BY channel LIMIT ?2)"
            " ORDER BY 1 LIMIT ?2",
            (after, limit),
        ).fetchall()
        return [channel for (channel,) in rows]

    def put(self, channel: str, epoch: str, expires_s: float, now_s: float) -> Stream:
        """Replaces the stream of the channel by one that is not settled, without publications."""
        self.take_away(channel, now_s)
        row = self._transaction.begin().execute(_INSERT, (channel, epoch, UNSETTLED, expires_s, expires_s)).fetchone()
        stream = self._cache[channel] = Stream(row)
        self.mark_changed(stream)
        return stream

    def take_away(self, channel: str, now_s: float) -> None:
        """Takes the channel from its stream, if there is one, whatever its state."""
        stream = self._load(channel)
        if stream is not None:
            self._retire(stream, now_s)

    def settle(self) -> None:
        """Loaded streams are originals from now on. As part of the transaction, in which all rows must be written."""
        self._transaction.begin().execute(
            "UPDATE streams SET generation = ? WHERE generation = ?", (self._generation, UNSETTLED)
        )
        self._cache.clear()
        self.follows_original = False

    def adopt(self) -> None:
        """Streams that are not settled get new epochs at their next use. As part of the transaction, in which all rows
        must be written."""
        self._transaction.begin().execute(
            "UPDATE streams SET generation = ? WHERE generation = ?", (OF_LOST_ORIGINAL, UNSETTLED)
        )
        self._cache.clear()
        self.follows_original = False

    def follow(self) -> None:
        """No stream is the original any more, until `settle`. As part of the transaction, in which all rows must be
        written."""
        self._transaction.begin().execute("UPDATE streams SET generation = ?", (UNSETTLED,))
        self._cache.clear()
        self.follows_original = True

    def fork_copy(self, stream: Stream) -> None:
        """Gives the stream a new epoch if it is a copy and its original may have gone on."""
        if stream.generation == self._generation or (stream.generation == UNSETTLED and self.follows_original):
            return
        self._fork(stream)

    def _fork(self, stream: Stream) -> None:
        """The file is a copy. The original may have gone on with the same epoch, so this stream gets another one.

        Both share the publications up to `top`: positions of the old epoch up to there can still be recovered.
        """
        stream.ancestors = [(stream.epoch, stream.top), *stream.ancestors][:ANCESTORS_MAX]
        stream.epoch = self._new_epoch()
        stream.generation = self._generation
        self.mark_changed(stream)
