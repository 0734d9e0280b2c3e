"""Whether history has everything that a client missed: section 10 of the protocol reference."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.engines.port import HistoryPage
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.session.recovery import recover_cache, recover_stream


def at(offset: int, data: str = "x") -> Publication:
    return Publication(Raw(data.encode()), offset=offset)


def page(top: int, *kept: int, epoch: str = "e") -> HistoryPage:
    return HistoryPage([at(offset) for offset in kept], StreamPosition(top, epoch))


@pytest.mark.parametrize(
    ("since", "found", "recovered"),
    [
        (StreamPosition(3, "e"), page(5, 4, 5), [4, 5]),
        (StreamPosition(3, ""), page(5, 4, 5), [4, 5]),
        (StreamPosition(5, "e"), page(5), []),
        (StreamPosition(0, ""), page(0), []),
        (StreamPosition(0, ""), page(2, 1, 2), [1, 2]),
        (StreamPosition(3, "e"), page(5, 5), None),
        (StreamPosition(3, "e"), page(6, 4, 5), None),
        (StreamPosition(3, "e"), page(5), None),
        (StreamPosition(7, "e"), page(5), None),
        (StreamPosition(3, "x"), page(5, 4, 5), None),
        (StreamPosition(5, "x"), page(5), None),
        (StreamPosition(0, "_"), page(0), None),
        (StreamPosition(0, "_"), page(2, 1, 2), None),
    ],
)
def test_stream_recovery_needs_every_publication_after_the_position(
    since: StreamPosition, found: HistoryPage, recovered: list[int] | None
) -> None:
    """From the next offset to the top, in the same epoch. Otherwise nothing is recovered."""
    recovery = recover_stream(since, found)
    assert recovery.recovered is (recovered is not None)
    assert [publication.offset for publication in recovery.publications] == (recovered or [])


@pytest.mark.parametrize(
    ("since", "found", "recovered"),
    [
        (StreamPosition(3, "e"), page(5, 5), [5]),
        (StreamPosition(5, "e"), page(5, 5), []),
        (StreamPosition(5, "x"), page(5, 5), [5]),
        (StreamPosition(0, ""), page(5, 5), [5]),
        (StreamPosition(5, "e"), page(5), []),
        (StreamPosition(3, "e"), page(5), None),
        (StreamPosition(5, "x"), page(5), None),
        (StreamPosition(0, ""), page(0), None),
        (StreamPosition(0, "e"), page(0), None),
        (StreamPosition(0, "_"), page(0), None),
        (StreamPosition(3, "e"), page(5, 4), None),
    ],
)
def test_cache_recovery_returns_the_latest_publication(
    since: StreamPosition, found: HistoryPage, recovered: list[int] | None
) -> None:
    """Unless the client has it. If the latest publication is gone, only a client at the top has missed nothing."""
    recovery = recover_cache(since, found)
    assert recovery.recovered is (recovered is not None)
    assert [publication.offset for publication in recovery.publications] == (recovered or [])
