"""The retained publications of one stream."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from sys import getsizeof

from beaconfire.model.publication import Publication

PUBLICATION_BYTES = 288
"""Memory for a publication without its data, tags and info: the object, its expiry and its list entries. Measured."""

_INFO_BYTES = 352
"""Memory for a `ClientInfo` without the user name and the payloads. Measured; all client ids have the same length."""

_DROPPED = Publication()
_COMPACT_MIN = 32


def cost_bytes(publication: Publication) -> int:
    """The memory in bytes that a retained publication takes. Objects shared with other publications count in full."""
    cost = PUBLICATION_BYTES + len(publication.data)
    info, tags = publication.info, publication.tags
    if info is not None:
        cost += _INFO_BYTES + getsizeof(info.user) + len(info.conn_info) + len(info.chan_info)
    if tags:
        cost += getsizeof(tags)
        for key, value in tags.items():
            cost += getsizeof(key) + getsizeof(value)
    return cost


class RetainedPublications:
    """The newest publications of a stream in the order of their offsets, without gaps, each with its expiry.

    Offsets are contiguous and end at the stream's top, so an index is found by subtraction. The first `_head` entries
    of all lists are already dropped: deleting them at each drop would be slow for a long list.
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

    def is_expired(self, now_s: float) -> bool:
        """Whether all publications have expired, or there are none."""
        return not self or self._expires_s[-1] <= now_s

    def count_expired(self, now_s: float) -> int:
        return self._first_alive(now_s) - self._head

    def count_alive(self, now_s: float) -> int:
        return len(self._publications) - self._first_alive(now_s)

    def append(self, publication: Publication, expires_s: float, cost: int) -> None:
        """Appends a publication. `cost` is its `cost_bytes`.

        Earlier publications expire no later than this one, even if they had a longer time to live when they were
        stored: a stream loses its oldest publications first, so that it never has a gap.
        """
        expiries = self._expires_s
        if expiries and expiries[-1] > expires_s:
            self._expire_by(expires_s)
        expiries.append(expires_s)
        self._costs.append(cost)
        self._publications.append(publication)

    def _expire_by(self, expires_s: float) -> None:
        expiries = self._expires_s
        index = len(expiries) - 1
        while index >= self._head and expiries[index] > expires_s:
            expiries[index] = expires_s
            index -= 1

    def drop_oldest(self, count: int) -> int:
        """Drops the `count` oldest publications. Returns the sum of their costs."""
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
        """Publications with offsets above `since`, oldest first; at most `limit`, or all if `limit` is negative."""
        start = max(self._first_alive(now_s), self._index(since + 1, top))
        return self._publications[start:] if limit < 0 else self._publications[start : start + limit]

    def read_backward(self, now_s: float, limit: int, since: int, top: int) -> list[Publication]:
        """Publications with offsets below `since`, newest first; at most `limit`, or all if `limit` is negative."""
        start = self._first_alive(now_s)
        stop = max(start, min(len(self._publications), self._index(since, top)))
        if limit >= 0:
            start = max(start, stop - limit)
        page = self._publications[start:stop]
        page.reverse()
        return page

    def read_with_expiries(self, now_s: float, since: int, top: int) -> tuple[list[Publication], list[float]]:
        """All publications with offsets above `since`, oldest first, and the expiry of each."""
        start = max(self._first_alive(now_s), self._index(since + 1, top))
        return self._publications[start:], self._expires_s[start:].tolist()

    def _index(self, offset: int, top: int) -> int:
        """The index that the offset has or would have. The last index belongs to `top`."""
        return len(self._publications) - 1 - (top - offset)

    def _first_alive(self, now_s: float) -> int:
        return bisect_right(self._expires_s, now_s, self._head)
