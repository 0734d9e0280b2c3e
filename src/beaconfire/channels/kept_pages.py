"""Pages of history that were read a moment ago, for subscribers that come a moment later.

Clients that return together do not arrive at the same instant: a node accepts some thousand of them per second. So most
of them ask after the read of their channel has ended.

Theory of operation. A page serves a later subscriber as well as a new read would, as long as the hub was given nothing
after the top of the page. The subscriber is in the hub and its channel is attached. Every publication after the top is
therefore given to the hub later: by its announcement, or, if that is lost, by the healing of the channel, which starts
at the position that the hub knows. And the subscriber holds what is given to the hub. If the healing fails, the
subscriber is told, as all others are. To the subscriber all this looks like a slow read of its own.

A page does not know when its publications expire, so it is kept for a short time. A node that removes the history of a
channel tells all nodes. If that message is lost, they return what was removed for the same short time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from beaconfire.base.timers import Timers
from beaconfire.channels.read_requests import ReadRequest, part_of
from beaconfire.engines.port import HistoryPage
from beaconfire.model.position import StreamPosition

KEPT_MAX_S: Final = 10.0
"""How long a page is kept at most: longer than it takes some ten thousand clients to return."""

KEPT_SHARE: Final = 0.1
"""A page is kept for this share of the time to live of its publications. So none is returned that is older than 1.1
times its time to live."""

KEPT_BYTES_MAX: Final = 16 * 1024 * 1024
"""The size of all pages that are kept. Beyond the limit, the oldest ones are dropped."""

PUBLICATION_BYTES: Final = 256
"""Roughly what a publication costs in addition to its data."""


class KeptPage(Struct, frozen=True):
    """A page, the request that it was read for, and its size in bytes."""

    request: ReadRequest
    page: HistoryPage
    size: int
    since_s: float


class KeptPages:
    """For each channel the last page of each kind of request."""

    def __init__(self, timers: Timers, announced: Callable[[str], StreamPosition | None]) -> None:
        """`announced` is `Hub.announced`. `timers` may be coarse."""
        self._timers = timers
        self._announced = announced
        self._pages: dict[tuple[str, ReadRequest], KeptPage] = {}
        """By channel and kind, oldest first."""
        self._bytes = 0

    def keep(self, channel: str, request: ReadRequest, page: HistoryPage) -> None:
        """Keeps a page that was read for `request`, unless a limit has cut it off before the top."""
        publications = page.publications
        if request.since is not None and publications and publications[-1].offset != page.position.offset:
            return
        key = (channel, request.kind)
        self._drop(key)
        size = sum(len(publication.data) + PUBLICATION_BYTES for publication in publications) + PUBLICATION_BYTES
        if not self._pages:
            self._timers.after(KEPT_MAX_S, self._drop_expired)
        self._pages[key] = KeptPage(request, page, size, self._timers.clock.now_s())
        self._bytes += size
        while self._bytes > KEPT_BYTES_MAX:
            self._drop(next(iter(self._pages)))

    def find(self, channel: str, request: ReadRequest) -> HistoryPage | None:
        """The page for a subscriber that is in the hub and whose channel is attached. None if the engine must read."""
        kept = self._pages.get((channel, request.kind))
        if kept is None or request.offset < kept.request.offset:
            return None
        if self._timers.clock.now_s() - kept.since_s >= min(KEPT_MAX_S, KEPT_SHARE * request.options.ttl_s):
            return None
        announced, top = self._announced(channel), kept.page.position
        if announced is None or announced.epoch != top.epoch or announced.offset > top.offset:
            return None
        return part_of(kept.page, kept.request, request)

    def forget(self, channel: str) -> None:
        """The history of the channel was removed."""
        for key in [key for key in self._pages if key[0] == channel]:
            self._drop(key)

    def __len__(self) -> int:
        return len(self._pages)

    def _drop(self, key: tuple[str, ReadRequest]) -> None:
        kept = self._pages.pop(key, None)
        if kept is not None:
            self._bytes -= kept.size

    def _drop_expired(self) -> None:
        now_s = self._timers.clock.now_s()
        while self._pages:
            key, oldest = next(iter(self._pages.items()))
            if oldest.since_s + KEPT_MAX_S > now_s:
                self._timers.at(oldest.since_s + KEPT_MAX_S, self._drop_expired)
                return
            self._drop(key)
