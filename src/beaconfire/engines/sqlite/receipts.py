"""What makes a repeated publish harmless: idempotency keys and the numbers of producers, in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from beaconfire.engines.port import IDEMPOTENCY_TTL_S, PRODUCERS_MAX
from beaconfire.engines.producers import UNKNOWN_PRODUCER, Producer
from beaconfire.engines.sqlite.rows import placeholders, write_rows
from beaconfire.engines.sqlite.streams import Stream
from beaconfire.engines.sqlite.transaction import Transaction
from beaconfire.model.position import StreamPosition

PRODUCERS_CACHED_MAX: Final = 10_000
"""How many producers stay in memory: about 15 MB."""


class IdempotencyTable:
    """Positions by channel and idempotency key."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._new: dict[tuple[str, str], tuple[StreamPosition, float]] = {}

    def find(self, channel: str, key: str, now_s: float) -> StreamPosition | None:
        """The position of the first publish with this key, or None if the key is unknown or has expired."""
        new = self._new.get((channel, key))
        if new is not None:
            return new[0]
        row = self._transaction.connection.execute(
            "SELECT offset, epoch FROM idempotency_keys WHERE channel = ? AND key = ? AND expires_s > ?",
            (channel, key, now_s),
        ).fetchone()
        return None if row is None else StreamPosition(*row)

    def store(self, channel: str, key: str, position: StreamPosition, now_s: float) -> None:
        """Keeps the key, which must be unknown or expired."""
        self._new[channel, key] = (position, now_s + IDEMPOTENCY_TTL_S)

    def put(self, channel: str, key: str, position: StreamPosition, expires_s: float) -> None:
        """Keeps or replaces a key of another engine."""
        self._new[channel, key] = (position, expires_s)

    def read(self, channel: str, since: int, now_s: float) -> list[tuple[str, StreamPosition, float]]:
        """The keys that have not expired, and whose position is `since` or above. All changes must be written."""
        rows = self._transaction.connection.execute(
            "SELECT key, offset, epoch, expires_s FROM idempotency_keys WHERE channel = ? AND expires_s > ? "
            "AND offset >= ?",
            (channel, now_s, since),
        ).fetchall()
        return [(key, StreamPosition(offset, epoch), expires_s) for key, offset, epoch, expires_s in rows]

    def read_all(self, channels: Sequence[str], now_s: float) -> dict[str, list[tuple[str, StreamPosition, float]]]:
        """The keys of each of these channels that have not expired. All changes must be written."""
        found: dict[str, list[tuple[str, StreamPosition, float]]] = {channel: [] for channel in channels}
        rows = self._transaction.connection.execute(
            "SELECT channel, key, offset, epoch, expires_s FROM idempotency_keys "
            f"WHERE channel IN ({placeholders(channels)}) AND expires_s > ?",
            (*channels, now_s),
        )
        for channel, key, offset, epoch, expires_s in rows:
            found[channel].append((key, StreamPosition(offset, epoch), expires_s))
        return found

    def remove(self, channel: str) -> None:
        """Removes all keys of the channel. New ones must be written before."""
        self._transaction.begin().execute("DELETE FROM idempotency_keys WHERE channel = ?", (channel,))

    def flush(self) -> None:
        """Writes the new keys, as part of the transaction."""
        if self._new:
            new, self._new = self._new, {}
            rows = [(*key, *position, expires_s) for key, (position, expires_s) in new.items()]
            write_rows(self._transaction.begin(), "INSERT OR REPLACE INTO idempotency_keys", rows)

    def forget_new(self) -> None:
        """After a transaction that was not committed."""
        self._new = {}

    def remove_expired(self, now_s: float, count: int) -> bool:
        """Removes at most `count` expired keys, in the order in which they were stored. True if more may remain."""
        removed = self._transaction.begin().execute(
            "DELETE FROM idempotency_keys WHERE expires_s <= ? AND rowid IN "
            "(SELECT rowid FROM idempotency_keys ORDER BY rowid LIMIT ?)",
            (now_s, count),
        )
        return removed.rowcount >= count


class ProducerTable:
    """The producers of all streams: a table in the file, and a cache."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._cache: dict[tuple[int, str], Producer] = {}
        self._changed: dict[tuple[int, str], Stream] = {}

    def receipt(self, stream: Stream | None, name: str, seq: int) -> StreamPosition | None:
        """See `Producer.receipt`."""
        producer = UNKNOWN_PRODUCER if stream is None else self._load(stream, name) or UNKNOWN_PRODUCER
        return producer.receipt(name, seq)

    def take(self, stream: Stream, name: str, position: StreamPosition) -> None:
        """Takes the next number of the producer. Above `PRODUCERS_MAX` this forgets the producer of the stream that has
        not published for the longest time."""
        producer = self._load(stream, name)
        if producer is None:
            producer = self._cache[stream.id, name] = Producer()
            self._make_room(stream)
            stream.producers += 1
        producer.take(position)
        self._changed[stream.id, name] = stream

    def put(self, stream: Stream, producers: Mapping[str, Producer]) -> None:
        """Adds or replaces producers of the stream, the one that published last at the end."""
        first = stream.top - len(producers)  # `used` orders producers; 1,000 negative numbers do no harm.
        rows = [
            (stream.id, name, producer.last, producer.epoch, producer.dump(), first + index)
            for index, (name, producer) in enumerate(producers.items())
        ]
        write_rows(self._transaction.begin(), "INSERT OR REPLACE INTO producers", rows)
        for name in producers:
            self._cache.pop((stream.id, name), None)
            self._changed.pop((stream.id, name), None)
        stream.producers = -1

    def read(self, streams: Sequence[Stream]) -> dict[int, list[tuple[str, int, str, bytes]]]:
        """Name, last number, epoch and receipts of the producers of each stream, by its id, the one that published last
        at the end. All changes must be written."""
        found: dict[int, list[tuple[str, int, str, bytes]]] = {}
        rows = self._transaction.connection.execute(
            "SELECT stream, name, last, epoch, receipts FROM producers "
            f"WHERE stream IN ({placeholders(streams)}) ORDER BY stream, used",
            [stream.id for stream in streams],
        )
        for id, *producer in rows:
            found.setdefault(id, []).append(tuple(producer))
        return found

    def flush(self) -> None:
        """Writes the producers that have published, as part of the transaction."""
        if not self._changed:
            return
        changed, self._changed = self._changed, {}
        rows = []
        for (stream_id, name), stream in changed.items():
            producer = self._cache[stream_id, name]
            rows.append((stream_id, name, producer.last, producer.epoch, producer.dump(), stream.top))
        write_rows(self._transaction.begin(), "INSERT OR REPLACE INTO producers", rows)

    def remove_all(self, stream: Stream) -> None:
        """Removes the producers of the stream."""
        self._transaction.begin().execute("DELETE FROM producers WHERE stream = ?", (stream.id,))

    def forget_cache(self) -> None:
        """After a transaction that was not committed."""
        self._cache.clear()
        self._changed.clear()

    def shrink_cache(self) -> None:
        """Between transactions: forgets the producers that were loaded first, above the limit."""
        while len(self._cache) > PRODUCERS_CACHED_MAX:
            del self._cache[next(iter(self._cache))]

    def _load(self, stream: Stream, name: str) -> Producer | None:
        producer = self._cache.get((stream.id, name))
        if producer is None:
            row = self._transaction.connection.execute(
                "SELECT last, epoch, receipts FROM producers WHERE stream = ? AND name = ?", (stream.id, name)
            ).fetchone()
            if row is None:
                return None
            producer = self._cache[stream.id, name] = Producer(*row)
        return producer

    def _make_room(self, stream: Stream) -> None:
        connection = self._transaction.begin()
        if stream.producers < 0:
            self.flush()
            (stream.producers,) = connection.execute(
                "SELECT count(*) FROM producers WHERE stream = ?", (stream.id,)
            ).fetchone()
        if stream.producers >= PRODUCERS_MAX:
            self.flush()
            (forgotten,) = connection.execute(
                "SELECT name FROM producers WHERE stream = ? ORDER BY used LIMIT 1", (stream.id,)
            ).fetchone()
            connection.execute("DELETE FROM producers WHERE stream = ? AND name = ?", (stream.id, forgotten))
            self._cache.pop((stream.id, forgotten), None)
            stream.producers -= 1
