"""A page of history that was read a moment ago serves later subscribers, as long as it is as good as a new read."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.timers import Timers
from beaconfire.channels.kept_pages import KEPT_BYTES_MAX, KEPT_MAX_S, KEPT_SHARE, KeptPages
from beaconfire.channels.read_requests import ReadRequest
from beaconfire.engines.port import HistoryOptions, HistoryPage
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication

HISTORY = HistoryOptions(size=10, ttl_s=100.0)
EPOCH = "epoch"


class Harness:
    """Pages of the channel news. `announced` is what the hub was given last."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.announced: StreamPosition | None = at(8)
        self.pages = KeptPages(self.timers, lambda channel: self.announced)

    def keep(self, channel: str, since: int, page: HistoryPage) -> None:
        self.pages.keep(channel, request(since), page)

    def find(self, since: int, channel: str = "news") -> list[int] | None:
        """The offsets that the subscriber gets. None if the engine must read."""
        page = self.pages.find(channel, request(since))
        return None if page is None else [publication.offset for publication in page.publications]

    def advance_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()


def at(offset: int, epoch: str = EPOCH) -> StreamPosition:
    return StreamPosition(offset, epoch)


def request(since: int, limit: int = 5) -> ReadRequest:
    return ReadRequest(HISTORY, limit, at(since), False)


def page(*offsets: int, top: int = 8, size: int = 1) -> HistoryPage:
    return HistoryPage([Publication(Raw(b"1" * size), offset=offset) for offset in offsets], at(top), True)


def test_page_serves_the_positions_from_its_own_to_the_top() -> None:
    """Each subscriber gets what is after its position. The engine must read for an earlier position."""
    harness = Harness()
    harness.keep("news", 5, page(6, 7, 8))
    assert [harness.find(since) for since in (4, 5, 6, 8)] == [None, [6, 7, 8], [7, 8], []]
    assert harness.find(5, "sport") is None


@pytest.mark.parametrize(
    ("announced", "serves"),
    [
        pytest.param(at(8), True, id="the top"),
        pytest.param(at(7), True, id="the hub gets the last publication later"),
        pytest.param(at(9), False, id="the hub was given a later publication, perhaps before the subscriber came"),
        pytest.param(at(8, "other"), False, id="another epoch"),
        pytest.param(None, False, id="the hub does not know the position"),
    ],
)
def test_page_serves_as_long_as_everything_after_it_reaches_the_subscriber(
    announced: StreamPosition | None, serves: bool
) -> None:
    """What is given to the hub after the subscriber has come is held for the subscriber."""
    harness = Harness()
    harness.keep("news", 5, page(6, 7, 8))
    harness.announced = announced
    assert (harness.find(5) is not None) is serves


def test_page_that_a_limit_has_cut_off_is_not_kept() -> None:
    """A later position may have room for publications that the page does not have."""
    harness = Harness()
    harness.keep("news", 2, page(3, 4, 5, 6, 7))
    assert len(harness.pages) == 0


def test_requests_of_another_kind_are_read() -> None:
    """The limit, the direction, the epoch and the options must be the same."""
    harness = Harness()
    harness.keep("news", 5, page(6, 7, 8))
    assert harness.pages.find("news", request(5, limit=6)) is None
    assert harness.pages.find("news", ReadRequest(HISTORY, 5, None, True)) is None


def test_latest_publication_and_the_position_are_kept_too() -> None:
    """Their requests have no position."""
    harness = Harness()
    latest, position = ReadRequest(HISTORY, 1, None, True), ReadRequest(HISTORY, 0, None, False)
    harness.pages.keep("news", latest, page(8))
    harness.pages.keep("news", position, page())
    assert harness.pages.find("news", latest) == page(8)
    assert harness.pages.find("news", position) == page()


def test_pages_are_kept_for_a_short_time() -> None:
    """Publications expire."""
    harness = Harness()
    harness.keep("news", 5, page(6, 7, 8))
    harness.advance_time(KEPT_MAX_S / 2)
    harness.keep("sport", 5, page(6, 7, 8))
    assert harness.find(5) == [6, 7, 8]
    harness.clock.advance(KEPT_MAX_S / 2)
    assert harness.find(5) is None, "also if the timer is late"
    harness.advance_time(0.0)
    assert (harness.find(5), harness.find(5, "sport")) == (None, [6, 7, 8])
    harness.advance_time(KEPT_MAX_S / 2)
    assert len(harness.pages) == len(harness.timers) == 0


def test_pages_of_publications_that_expire_soon_are_kept_for_a_share_of_that_time() -> None:
    """So a publication is returned a little later than its expiry at most."""
    harness = Harness()
    short = ReadRequest(HistoryOptions(size=10, ttl_s=5.0), 5, at(5), False)
    harness.pages.keep("news", short, page(6, 7, 8))
    assert harness.pages.find("news", short) == page(6, 7, 8)
    harness.advance_time(5.0 * KEPT_SHARE)
    assert harness.pages.find("news", short) is None
    harness.advance_time(KEPT_MAX_S)
    assert len(harness.pages) == 0


def test_new_page_replaces_the_one_before() -> None:
    """It is newer, and its position is the one that was needed last."""
    harness = Harness()
    harness.keep("news", 5, page(6, 7, 8))
    harness.announced = at(9)
    harness.keep("news", 7, page(8, 9, top=9))
    assert (len(harness.pages), harness.find(7), harness.find(5)) == (1, [8, 9], None)


def test_oldest_pages_are_dropped_beyond_the_limit() -> None:
    """The size of all pages together is limited."""
    harness = Harness()
    for channel in ("news", "sport", "weather"):
        harness.keep(channel, 7, page(8, size=KEPT_BYTES_MAX // 3))
    assert [harness.find(7, channel) for channel in ("news", "sport", "weather")] == [None, [8], [8]]
    harness.keep("large", 7, page(8, size=KEPT_BYTES_MAX))
    assert len(harness.pages) == 0


def test_removed_history_is_forgotten() -> None:
    """Only that of the channel."""
    harness = Harness()
    harness.keep("news", 5, page(6, 7, 8))
    harness.keep("sport", 5, page(6, 7, 8))
    harness.pages.forget("news")
    assert (harness.find(5), harness.find(5, "sport")) == (None, [6, 7, 8])
