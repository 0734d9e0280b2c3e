"""Reading on from a position while a subscription is live."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.delivery.subscription import Gap
from beaconfire.engines.port import HistoryPage
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.session.recovery import read_latest, read_on

TOP = StreamPosition(5, "epoch")


def page(*offsets: int) -> HistoryPage:
    """These publications of a stream whose top is `TOP`."""
    return HistoryPage([Publication(Raw(b"1"), offset=offset) for offset in offsets], TOP)


def offsets(publications: object) -> list[int]:
    assert isinstance(publications, list | tuple)
    return [publication.offset for publication in publications]


def test_reading_on_gives_the_publications_after_the_position() -> None:
    """A page that a limit cut short is read on from its end."""
    assert offsets(read_on(StreamPosition(2, "epoch"), page(3, 4, 5))) == [3, 4, 5]
    assert offsets(read_on(StreamPosition(2, "epoch"), page(3))) == [3]
    assert offsets(read_on(TOP, page())) == []


@pytest.mark.parametrize(
    ("since", "kept"),
    [
        (StreamPosition(2, "epoch"), page(4, 5)),  # the publication after the position has expired
        (StreamPosition(2, "epoch"), page()),  # all publications have expired
        (StreamPosition(2, "other"), page(3, 4, 5)),  # another stream
    ],
)
def test_a_gap_is_raised_if_history_does_not_reach_the_position(since: StreamPosition, kept: HistoryPage) -> None:
    """The subscription then ends with a gap instead of a hole that the client does not notice."""
    with pytest.raises(Gap, match="history does not reach back to offset 2"):
        read_on(since, kept)


def test_latest_publication_is_read_if_it_comes_after_the_position() -> None:
    """Publications between the position and the latest one are left out on purpose."""
    assert offsets(read_latest(StreamPosition(2, "epoch"), page(5))) == [5]
    assert offsets(read_latest(TOP, page(5))) == []


def test_latest_publication_of_another_epoch_is_a_gap() -> None:
    """Its offset cannot be compared with the position."""
    with pytest.raises(Gap, match="epoch changed from 'other' to 'epoch'"):
        read_latest(StreamPosition(2, "other"), page(5))
