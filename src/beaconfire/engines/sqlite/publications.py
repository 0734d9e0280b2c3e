"""The publications of all streams in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Raw, Struct

from beaconfire.engines.sqlite.rows import placeholders, write_rows
from beaconfire.engines.sqlite.streams import Stream
from beaconfire.engines.sqlite.transaction import Transaction
from beaconfire.model.publication import ClientInfo, Publication, to_payload

TRIM_MIN: Final = 32
"""How many publications beyond the size of a history wait until they are removed together."""

TRIM_MAX: Final = 1000
"""How many publications one transaction removes at most from a stream."""

_Info: TypeAlias = tuple[str, str, bytes, bytes]
_Extra: TypeAlias = tuple[_Info | None, dict[str, str] | None]

_INSERT: Final = "INSERT INTO publications (stream, offset, expires_s, data, extra)"
_DELETE: Final = "DELETE FROM publications WHERE stream = ? AND offset >= ? AND offset < ?"
_SELECT: Final = "SELECT offset, data, extra FROM publications WHERE stream = ? AND offset >= ? AND offset <= ? "


class StoredPublications(Struct):
    """The publications of a stream, the expiry of each, and the offset of the oldest one that has not expired: the one
    after the top without any."""

    oldest: int
    publications: list[Publication]
    expiries_s: list[float]


class PublicationTable:
    """Appended publications are written by `flush`, together for all streams of a batch."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._new: list[tuple[Any, ...]] = []
        self._trimmed: list[Stream] = []

    def append(
        self, stream: Stream, expires_s: float, data: Raw, info: ClientInfo | None, tags: Mapping[str, str] | None
    ) -> None:
        """Adds the publication at `stream.top`."""
        self._new.append((stream.id, stream.top, expires_s, data, _pack(info, tags)))
        if stream.oldest - stream.floor >= TRIM_MIN:
            self._trimmed.append(stream)

    def put(self, stream: Stream, publication: Publication, expires_s: float) -> None:
        """Adds a publication with its own offset. The caller moves `stream.top`."""
        extra = _pack(publication.info, publication.tags)
        self._new.append((stream.id, publication.offset, expires_s, publication.data, extra))

    def read_tail(self, stream: Stream, since: int, now_s: float) -> StoredPublications:
        """What has not expired above the offset `since`. All changes must be written."""
        oldest, _ = self.oldest_alive(stream, now_s)
        first = max(oldest, since + 1)
        rows = self._transaction.connection.execute(
            "SELECT expires_s FROM publications WHERE stream = ? AND offset >= ? AND offset <= ? ORDER BY offset",
            (stream.id, first, stream.top),
        ).fetchall()
        publications = self.read(stream, first, stream.top, -1, False)
        return StoredPublications(oldest, publications, [expires_s for (expires_s,) in rows])

    def read_whole(self, streams: Sequence[Stream], now_s: float) -> dict[int, StoredPublications]:
        """What has not expired of each of these streams, by their ids. All changes must be written."""
        found = {stream.id: StoredPublications(stream.top + 1, [], []) for stream in streams}
        by_id = {stream.id: stream for stream in streams if stream.has_publications(now_s)}
        rows = self._transaction.connection.execute(
            "SELECT stream, offset, expires_s, data, extra FROM publications "
            f"WHERE stream IN ({placeholders(by_id)}) ORDER BY stream, offset",
            tuple(by_id),
        )
        for id, offset, expires_s, data, extra in rows:
            stream, stored = by_id[id], found[id]
            if not stream.oldest <= offset <= stream.top or (expires_s <= now_s and not stored.publications):
                continue
            stored.oldest = min(stored.oldest, offset)
            stored.publications.append(_publication(stream, offset, data, extra))
            stored.expiries_s.append(expires_s)
        return found

    def expire_no_later(self, stream: Stream, expires_s: float) -> None:
        """Earlier publications expire no later than a new one, even if they had a longer time to live when they were
        stored: a stream loses its oldest publications first, so that it never has a gap."""
        self.flush()
        self._transaction.begin().execute(
            "UPDATE publications SET expires_s = ? WHERE stream = ? AND expires_s > ?",
            (expires_s, stream.id, expires_s),
        )

    def flush(self) -> None:
        """Writes what was appended, and removes what exceeds the sizes of the histories. The rows of the streams must
        be flushed afterwards, in the same transaction."""
        if self._new:
            new, self._new = self._new, []
            write_rows(self._transaction.begin(), _INSERT, new)
        trimmed, self._trimmed = self._trimmed, []
        for stream in trimmed:
            if stream.oldest - stream.floor >= TRIM_MIN:
                self.remove_below(stream, stream.oldest, TRIM_MAX)

    def forget_new(self) -> None:
        """After a transaction that was not committed."""
        self._new = []
        self._trimmed = []

    def remove_below(self, stream: Stream, offset: int, count: int) -> int:
        """Removes at most `count` publications below the offset, and moves `stream.floor`. Returns how many at most."""
        end = min(offset, stream.floor + count)
        if end <= stream.floor:
            return 0
        removed = end - stream.floor
        self._transaction.begin().execute(_DELETE, (stream.id, stream.floor, end))
        stream.floor = end
        return removed

    def oldest_alive(self, stream: Stream, now_s: float) -> tuple[int, float]:
        """The offset and the expiry of the oldest publication that can be read. Without any: `top + 1`, and 0."""
        if not stream.has_publications(now_s):
            return stream.top + 1, 0.0
        row: tuple[int, float] | None = self._transaction.connection.execute(
            "SELECT offset, expires_s FROM publications WHERE stream = ? AND offset >= ? AND expires_s > ? "
            "ORDER BY offset LIMIT 1",
            (stream.id, stream.oldest, now_s),
        ).fetchone()
        return (stream.top + 1, 0.0) if row is None else row

    def read(self, stream: Stream, first: int, last: int, limit: int, reverse: bool) -> list[Publication]:
        """The publications with offsets from `first` to `last`; at most `limit`, or all if `limit` is negative."""
        if limit == 0 or first > last:
            return []
        rows = self._transaction.connection.execute(
            f"{_SELECT}ORDER BY offset {'DESC' if reverse else ''} LIMIT ?", (stream.id, first, last, limit)
        ).fetchall()
        return [_publication(stream, *row) for row in rows]


def _publication(stream: Stream, offset: int, data: bytes, extra: bytes | None) -> Publication:
    info, tags = (None, None) if extra is None else _EXTRA_DECODER.decode(extra)
    return Publication(
        to_payload(data),
        None if info is None else ClientInfo(info[0], info[1], to_payload(info[2]), to_payload(info[3])),
        offset,
        tags,
        stream.epoch if offset == 1 else "",
    )


def _pack(info: ClientInfo | None, tags: Mapping[str, str] | None) -> bytes | None:
    """What few publications have, in one column."""
    if info is None and not tags:
        return None
    packed = None if info is None else (info.user, info.client, bytes(info.conn_info), bytes(info.chan_info))
    extra: _Extra = (packed, dict(tags) if tags else None)
    return msgspec.msgpack.encode(extra)


_EXTRA_DECODER: Final[msgspec.msgpack.Decoder[_Extra]] = msgspec.msgpack.Decoder(_Extra)
