"""Whether history holds everything that a client missed."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from beaconfire.delivery.subscription import Gap
from beaconfire.engines.port import HistoryPage
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication


class Recovery(Struct, frozen=True):
    """The missed publications. There are none if `recovered` is false."""

    recovered: bool
    publications: Sequence[Publication]


def recover_stream(since: StreamPosition, page: HistoryPage) -> Recovery:
    """Every publication after `since`, or `recovered` false if history does not hold them all (section 10 of the
    reference).

    `page` was read with `since`. A limit may have shortened it.
    """
    publications = page.publications
    end = publications[-1].offset if publications else since.offset
    whole = page.continues and end == page.position.offset
    return Recovery(whole, publications if whole else ())


def read_on(since: StreamPosition, page: HistoryPage) -> Sequence[Publication]:
    """The publications after `since`, oldest first. `page` was read with `since`; a limit may have shortened it. Raises
    `Gap`."""
    if not page.continues:
        raise Gap(f"history does not reach back to offset {since.offset} of epoch {since.epoch!r}")
    return page.publications


def read_latest(since: StreamPosition, page: HistoryPage) -> Sequence[Publication]:
    """The latest publication, if it is after `since` and history holds it. Raises `Gap` for another epoch."""
    if page.position.epoch != since.epoch:
        raise Gap(f"the stream's epoch changed from {since.epoch!r} to {page.position.epoch!r}")
    return recover_cache(since, page).publications


def recover_cache(since: StreamPosition, page: HistoryPage) -> Recovery:
    """The latest publication, unless the client has it already. `page` holds the latest publication or none."""
    same = since.offset > 0 and since == page.position
    if not page.publications:
        return Recovery(same, ())
    latest = page.publications[0]
    if latest.offset != page.position.offset:
        return Recovery(False, ())
    return Recovery(True, () if same else (latest,))
