"""The position that a channel has reached on this node, and publications that do not follow it."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.delivery.channel import UNKNOWN_EPOCH, LocalChannel
from beaconfire.delivery.healer import Announcement
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from tests.unit.delivery.harness import HubHarness


class RecordingHealer:
    """Keeps the announcements after a hole."""

    def __init__(self) -> None:
        self.holes: list[tuple[str, int]] = []

    def on_hole(self, channel: str, announcement: Announcement) -> None:
        self.holes.append((announcement.epoch, announcement.publication.offset))


def publication(offset: int) -> Publication:
    return Publication(Raw(b"1"), offset=offset)


def at(offset: int, epoch: str = "e") -> StreamPosition:
    return StreamPosition(offset, epoch)


def test_first_position_is_that_of_a_publication_or_of_a_page_of_history() -> None:
    """Whatever is first."""
    local = LocalChannel("")
    assert [local.announced] == [None]
    local.on_read(at(5))
    assert local.announced == at(5)
    local.note(publication(4), "e")
    assert local.announced == at(5), "an announcement that was on its way"
    local.note(publication(6), "e")
    assert local.announced == at(6)
    local.note(publication(1), "other")
    assert local.announced == at(1, "other")


def test_older_subscription_moves_the_position_back_to_what_was_delivered() -> None:
    """It has read history before a loss, so publications after its position may be missing."""
    local = LocalChannel("")
    local.on_read(at(12))
    local.on_read(at(10))
    assert local.announced == at(10)
    local.on_read(at(11))
    assert local.announced == at(10)
    local.note(publication(11), "e")
    local.note(publication(12), "e")
    local.on_read(at(10))
    assert local.announced == at(12), "the subscription gets pending publications"


def test_subscriptions_in_different_epochs_make_the_epoch_unknown() -> None:
    """The next comparison with the stream finds which of them is right."""
    local = LocalChannel("")
    local.on_read(at(12))
    local.on_read(at(3, "other"))
    assert local.announced == at(12, UNKNOWN_EPOCH)


@pytest.mark.parametrize("position", [None, at(7), at(7, "other")])
def test_channel_restarts_after_a_gap(position: StreamPosition | None) -> None:
    """At a position, or without one."""
    local = LocalChannel("")
    local.note(publication(5), "e")
    local.restart(position)
    assert local.announced == position
    local.note(publication(8), "e")
    assert local.announced == at(8)


def test_publications_that_do_not_follow_go_to_the_healer() -> None:
    """Those that the channel has already are dropped. A predecessor may be older than the position."""
    harness = HubHarness()
    healer = harness.hub.healer = RecordingHealer()
    harness.hub.add(harness.new_subscriber().subscription(positioned=True))
    for offset, previous, epoch in (
        (5, 4, "e"),
        (6, 5, "e"),
        (6, 5, "e"),
        (5, 4, "e"),
        (9, 6, "e"),
        (12, 8, "e"),
        (14, 13, "e"),
        (1, 0, "other"),
    ):
        harness.hub.publish("news", publication(offset), epoch, (), False, previous)
    assert healer.holes == [("e", 14), ("other", 1)]
    assert harness.hub.announced("news") == at(12)


def test_gap_mark_spares_live_subscriptions_that_have_reached_the_kept_position() -> None:
    """Others, also those that are catching up, are told. The channel continues at the kept position."""
    harness = HubHarness()
    subscribers = [harness.new_subscriber() for _ in range(4)]
    positions = (at(4), at(5), at(9, "other"), None)
    for subscriber, position in zip(subscribers, positions, strict=True):
        subscription = subscriber.subscription(positioned=True)
        harness.hub.add(subscription)
        if position is not None:
            subscription.go_live(position)
    harness.hub.mark_gap("news", "lost", kept=at(5))
    while harness.scheduled:
        harness.scheduled.pop(0)()
    assert [len(subscriber.gaps) for subscriber in subscribers] == [1, 0, 1, 1]
    assert harness.hub.announced("news") == at(5)
