"""Requests for history that can share a read, and what each of them gets from the page."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final, NamedTuple

from beaconfire.engines.port import HistoryOptions, HistoryPage
from beaconfire.model.position import StreamPosition

SPREAD_MAX: Final = 256
"""How far the offsets may be apart that share a read. The page of a read has at most so many publications more than one
subscriber may get. Positions that are further apart have reads of their own."""


class ReadRequest(NamedTuple):
    """The arguments of `Broker.history` without the channel. `limit` is 0 or more. With `reverse`, `since` is None."""

    options: HistoryOptions
    limit: int
    since: StreamPosition | None
    reverse: bool

    @property
    def offset(self) -> int:
        return 0 if self.since is None else self.since.offset

    @property
    def kind(self) -> ReadRequest:
        """Equal for requests that differ at most in the offset of `since`."""
        return self if self.since is None else self._replace(since=self.since._replace(offset=0))


def group(requests: Iterable[ReadRequest]) -> list[list[ReadRequest]]:
    """Groups requests that can share a read. In each group, the offsets rise and are at most `SPREAD_MAX` apart."""
    groups: list[list[ReadRequest]] = []
    kinds: dict[ReadRequest, list[ReadRequest]] = {}
    for request in sorted(requests, key=lambda request: request.offset):
        alike = kinds.get(request.kind)
        if alike is None or request.offset - alike[0].offset > SPREAD_MAX:
            alike = kinds[request.kind] = []
            groups.append(alike)
        alike.append(request)
    return groups


def part_of(page: HistoryPage, lowest: ReadRequest, request: ReadRequest) -> HistoryPage | None:
    """The page that the engine would have returned for `request`, or None if that is not known.

    `page` was read for `lowest`, which differs from `request` at most by a lower offset, and with a limit that is
    larger by this difference at least. So no publication of the result is cut off.
    """
    publications, top = page.publications, page.position
    since = request.since
    if since is None or since == lowest.since:
        return HistoryPage(publications[: request.limit], top, page.continues)
    if since.epoch not in ("", top.epoch):
        return None  # only the engine knows up to which offset an earlier epoch belongs to the history
    start = bisect_right(publications, since.offset, key=lambda publication: publication.offset)
    # History has no gap after its oldest publication. But only positions at publications are known to belong to it: one
    # in between may be that of a publication that the engine has lost.
    if since.offset > top.offset:
        continues = False
    elif start > 0 and publications[start - 1].offset == since.offset:
        continues = True
    else:
        return None
    return HistoryPage(publications[start : start + request.limit], top, continues)
