"""Whether history has everything that a client missed: section 10 of the protocol reference."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec import Raw

from beaconfire.delivery.subscription import Gap
from beaconfire.engines.port import HistoryPage
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.session.recovery import read_latest, read_on, recover_cache, recover_stream


def at(offset: int, data: str = "x") -> Publication:
    return Publication(Raw(data.encode()), offset=offset)


def page(top: int, *kept: int, continues: bool = True) -> HistoryPage:
    return HistoryPage([at(offset) for offset in kept], StreamPosition(top, "e"), continues)


@pytest.mark.parametrize(
    ("since", "found", "recovered"),
    [
        (StreamPosition(3, "e"), page(5, 4, 5), [4, 5]),
        (StreamPosition(3, "e"), page(9, 5, 9), [5, 9]),
        (StreamPosition(3, "an earlier epoch"), page(5, 4, 5), [4, 5]),
        (StreamPosition(5, "e"), page(5), []),
        (StreamPosition(0, ""), page(0), []),
        (StreamPosition(0, ""), page(2, 1, 2), [1, 2]),
        (StreamPosition(3, "e"), page(6, 4, 5), None),
        (StreamPosition(3, "e"), page(5), None),
        (StreamPosition(3, "e"), page(5, 5, continues=False), None),
        (StreamPosition(5, "x"), page(5, continues=False), None),
        (StreamPosition(0, "_"), page(2, 1, 2, continues=False), None),
    ],
)
def test_stream_recovery_needs_every_publication_after_the_position(
    since: StreamPosition, found: HistoryPage, recovered: list[int] | None
) -> None:
    """The page must continue from the position and reach the top. Otherwise nothing is recovered. The engine decides
    whether it continues: offsets may leave out numbers, and an older epoch may continue.
    """
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


def offsets(publications: Sequence[Publication]) -> list[int]:
    return [publication.offset for publication in publications]


def test_next_piece_has_the_publications_after_the_position() -> None:
    """A limit may cut the page. At the top of the stream the piece is empty."""
    assert offsets(read_on(StreamPosition(2, "e"), page(5, 3, 4, 5))) == [3, 4, 5]
    assert offsets(read_on(StreamPosition(2, "e"), page(5, 3))) == [3]
    assert offsets(read_on(StreamPosition(2, "e"), page(9, 5, 9))) == [5, 9]
    assert offsets(read_on(StreamPosition(5, "e"), page(5))) == []


@pytest.mark.parametrize("found", [page(5, 4, 5, continues=False), page(5, continues=False)])
def test_next_piece_raises_gap_if_history_does_not_continue(found: HistoryPage) -> None:
    """The client must then recover again, instead of missing publications without notice."""
    with pytest.raises(Gap, match="history does not reach back to offset 2 of epoch 'e'"):
        read_on(StreamPosition(2, "e"), found)


def test_next_piece_of_a_cache_is_the_latest_publication() -> None:
    """If the client has the latest publication, the piece is empty."""
    assert offsets(read_latest(StreamPosition(2, "e"), page(5, 5))) == [5]
    assert offsets(read_latest(StreamPosition(5, "e"), page(5, 5))) == []
    assert offsets(read_latest(StreamPosition(5, "e"), page(5))) == []


def test_next_piece_of_a_cache_raises_gap_for_another_epoch() -> None:
    """The offset of the client cannot be compared with the offsets of another stream."""
    with pytest.raises(Gap, match="epoch changed from 'x' to 'e'"):
        read_latest(StreamPosition(2, "x"), page(5, 5))
