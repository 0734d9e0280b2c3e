"""The retained tail of one stream."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from sys import getsizeof

from beaconfire.model.publication import Publication

PUBLICATION_BYTES = 288
"""What keeping a publication costs beside its data, tags and info, measured: the object, its expiry and its places."""

_INFO_BYTES = 352
"""What a `ClientInfo` costs beside the user's name and its payloads, measured; client ids are all equally long."""

_DROPPED = Publication()
_COMPACT_MIN = 32


def cost_bytes(publication: Publication) -> int:
    """How much memory keeping a publication takes. What it shares with others, like a user's name, counts in full."""
    cost = PUBLICATION_BYTES + len(publication.data)
    info, tags = publication.info, publication.tags
    if info is not None:
        cost += _INFO_BYTES + getsizeof(info.user) + len(info.conn_info) + len(info.chan_info)
    if tags:
        cost += getsizeof(tags)
        for key, value in tags.items():
            cost += getsizeof(key) + getsizeof(value)
    return cost


class Tail:
    """The youngest publications of a stream in the order of their offsets, without holes, each with its expiry.

    Offsets are contiguous and end at the stream's top, so a place is found by subtraction. All rows start
    with `_head` places that are already dropped: moving everything at each drop would make a long tail slow.
    """

    __slots__ = ("_costs", "_expires_s", "_head", "_publications")

    def __init__(self) -> None:
        self._publications: list[Publication] = []
        self._costs = array("Q")
        self._expires_s = array("d")
        self._head = 0

    def __len__(self) -> int:
        return len(self._publications) - self._head

    @property
    def oldest_expires_s(self) -> float:
        return self._expires_s[self._head]

    @property
    def newest_expires_s(self) -> float:
        return self._expires_s[-1]

    def is_expired(self, now_s: float) -> bool:
        """Whether nothing in it is alive."""
        return not self or self._expires_s[-1] <= now_s

    def count_expired(self, now_s: float) -> int:
        return self._first_alive(now_s) - self._head

    def append(self, publication: Publication, expires_s: float, cost: int) -> None:
        """`cost` comes from `cost_bytes`.

        Earlier publications expire no later than this one, even if they were promised more when they came: the channel
        has a shorter time to live now, and a stream loses its oldest first.
        """
        row = self._expires_s
        index = len(row) - 1
        while index >= self._head and row[index] > expires_s:
            row[index] = expires_s
            index -= 1
        row.append(expires_s)
        self._costs.append(cost)
        self._publications.append(publication)

    def drop_oldest(self, count: int) -> int:
        """Returns what they cost."""
        publications = self._publications
        dropped_bytes = 0
        for index in range(self._head, self._head + count):
            dropped_bytes += self._costs[index]
            publications[index] = _DROPPED
        self._head += count
        if self._head >= _COMPACT_MIN and self._head * 2 >= len(publications):
            del publications[: self._head]
            del self._expires_s[: self._head]
            del self._costs[: self._head]
            self._head = 0
        return dropped_bytes

    def read_forward(self, now_s: float, limit: int, since: int, top: int) -> list[Publication]:
        """Offsets above `since`, oldest first, at most `limit` of them unless it is negative."""
        start = max(self._first_alive(now_s), self._index(since + 1, top))
        return self._publications[start:] if limit < 0 else self._publications[start : start + limit]

    def read_backward(self, now_s: float, limit: int, since: int, top: int) -> list[Publication]:
        """Offsets below `since`, newest first, at most `limit` of them unless it is negative."""
        start = self._first_alive(now_s)
        stop = max(start, min(len(self._publications), self._index(since, top)))
        if limit >= 0:
            start = max(start, stop - limit)
        page = self._publications[start:stop]
        page.reverse()
        return page

    def _index(self, offset: int, top: int) -> int:
        """Where the offset is, or would be; the last place holds `top`."""
        return len(self._publications) - 1 - (top - offset)

    def _first_alive(self, now_s: float) -> int:
        return bisect_right(self._expires_s, now_s, self._head)
