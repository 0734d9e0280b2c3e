"""Defects of reads of history that subscribers share. The simulation must find them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import pytest

from beaconfire.channels import kept_pages, shared_reads
from beaconfire.channels.kept_pages import KeptPages
from beaconfire.channels.read_requests import ReadRequest, part_of
from beaconfire.channels.shared_reads import SharedReads, Waiter, Waiting
from beaconfire.engines.port import HistoryOptions, HistoryPage
from beaconfire.model.position import StreamPosition
from tests.simulation.disabled_checks import accept_missing_offsets


def _subscribers_join_a_running_read(patch: pytest.MonkeyPatch) -> None:
    """A subscriber gets the page of a read that has begun before the subscriber was added to the hub."""
    read, history = SharedReads._read, SharedReads.history
    running: dict[tuple[SharedReads, str], Waiting] = {}

    async def remember(self: SharedReads, channel: str, waiting: Waiting, group: list[ReadRequest]) -> None:
        running[self, channel] = waiting
        try:
            await read(self, channel, waiting, group)
        finally:
            running.pop((self, channel), None)

    async def join(
        self: SharedReads,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        waiters = running.get((self, channel), {}).get(ReadRequest(options, limit, since, reverse))
        if waiters is None:
            return await history(self, channel, options, limit, since, reverse)
        waiter: Waiter = asyncio.get_running_loop().create_future()
        waiters.append(waiter)
        return await waiter

    patch.setattr(SharedReads, "_read", remember)
    patch.setattr(SharedReads, "history", join)
    accept_missing_offsets(patch)  # or the subscription would find what it has missed, and the client would be told


def _page_is_not_cut(patch: pytest.MonkeyPatch) -> None:
    """Every subscriber gets all that was read for the lowest position."""

    def whole(page: HistoryPage, lowest: ReadRequest, request: ReadRequest) -> HistoryPage | None:
        part = part_of(page, lowest, request)
        return part and HistoryPage(page.publications, part.position, part.continues)

    patch.setattr(shared_reads, "part_of", whole)


def _part_begins_one_publication_too_late(patch: pytest.MonkeyPatch) -> None:
    """The first publication after the position of a subscriber is left out."""

    def late(page: HistoryPage, lowest: ReadRequest, request: ReadRequest) -> HistoryPage | None:
        part = part_of(page, lowest, request)
        if part is None or request == lowest:
            return part
        return HistoryPage(part.publications[1:], part.position, part.continues)

    patch.setattr(shared_reads, "part_of", late)


def _all_positions_have_the_judgement_of_the_lowest(patch: pytest.MonkeyPatch) -> None:
    """If history does not continue from the lowest position, nobody recovers."""

    def judge(page: HistoryPage, lowest: ReadRequest, request: ReadRequest) -> HistoryPage | None:
        part = part_of(page, lowest, request)
        return part and HistoryPage(part.publications, part.position, page.continues)

    patch.setattr(shared_reads, "part_of", judge)


def _unknown_positions_count_as_continued(patch: pytest.MonkeyPatch) -> None:
    """A position before the oldest publication recovers, although publications after it are gone."""

    def accept(page: HistoryPage, lowest: ReadRequest, request: ReadRequest) -> HistoryPage | None:
        return part_of(page, lowest, request) or HistoryPage(page.publications, page.position, True)

    patch.setattr(shared_reads, "part_of", accept)


def _positions_of_all_epochs_share_a_read(patch: pytest.MonkeyPatch) -> None:
    """The epoch of a position is taken for the one that was read."""

    def ignore_epoch(page: HistoryPage, lowest: ReadRequest, request: ReadRequest) -> HistoryPage | None:
        if request.since is not None and request != lowest:
            request = request._replace(since=request.since._replace(epoch=""))
        return part_of(page, lowest, request)

    def group_all(requests: Iterable[ReadRequest]) -> list[list[ReadRequest]]:
        found: dict[bool, list[ReadRequest]] = {}
        for request in sorted(requests, key=lambda request: request.offset):
            found.setdefault(request.since is None, []).append(request)
        return list(found.values())

    patch.setattr(shared_reads, "group", group_all)
    patch.setattr(shared_reads, "part_of", ignore_epoch)


def _failure_reaches_one_subscriber_only(patch: pytest.MonkeyPatch) -> None:
    """The others wait for ever."""
    answer = SharedReads._answer

    def answer_one(self: SharedReads, waiters: list[Waiter], result: HistoryPage | Exception) -> None:
        answer(self, waiters[:1] if isinstance(result, Exception) else waiters, result)

    patch.setattr(SharedReads, "_answer", answer_one)


def _kept_pages_serve_whatever_was_announced(patch: pytest.MonkeyPatch) -> None:
    """A subscriber gets a page although the hub was given a publication after the top of the page before."""

    def find(self: KeptPages, channel: str, request: ReadRequest) -> HistoryPage | None:
        kept = self._pages.get((channel, request.kind))
        if kept is None or request.offset < kept.request.offset:
            return None
        return part_of(kept.page, kept.request, request)

    patch.setattr(KeptPages, "find", find)
    accept_missing_offsets(patch)  # as in `_subscribers_join_a_running_read`


def _kept_pages_serve_earlier_positions(patch: pytest.MonkeyPatch) -> None:
    """A subscriber whose position is before that of the page gets the page."""
    find = KeptPages.find

    def find_any(self: KeptPages, channel: str, request: ReadRequest) -> HistoryPage | None:
        kept = self._pages.get((channel, request.kind))
        return find(self, channel, request if kept is None or kept.request.offset < request.offset else kept.request)

    patch.setattr(KeptPages, "find", find_any)


def _positions_between_publications_share_a_read(patch: pytest.MonkeyPatch) -> None:
    """A position counts as continued if that of the page does, also if the engine has lost the publication there."""

    def accept(page: HistoryPage, lowest: ReadRequest, request: ReadRequest) -> HistoryPage | None:
        part = part_of(page, lowest, request)
        if part is not None or request.since is None or not page.continues:
            return part
        later = [each for each in page.publications if each.offset > request.since.offset]
        return HistoryPage(later[: request.limit], page.position, True)

    patch.setattr(shared_reads, "part_of", accept)
    patch.setattr(kept_pages, "part_of", accept)


DEFECTS: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    _subscribers_join_a_running_read,
    _page_is_not_cut,
    _part_begins_one_publication_too_late,
    _all_positions_have_the_judgement_of_the_lowest,
    _unknown_positions_count_as_continued,
    _positions_of_all_epochs_share_a_read,
    _failure_reaches_one_subscriber_only,
    _kept_pages_serve_whatever_was_announced,
    _kept_pages_serve_earlier_positions,
    _positions_between_publications_share_a_read,
)
