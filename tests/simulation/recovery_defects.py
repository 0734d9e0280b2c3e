"""Defects of subscribing and recovery that the simulation must find: each function replaces a part of the server by a
wrong one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.delivery import subscription as subscription_module
from beaconfire.delivery.hub import Hub
from beaconfire.delivery.item import Item
from beaconfire.delivery.patched import Patched
from beaconfire.delivery.subscription import HELD, Held, Subscription, SubscriptionPhase
from beaconfire.engines.port import HistoryPage
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.session import recovery
from beaconfire.session.operations import prepare, recover_in_pieces
from beaconfire.session.recovery import Recovery
from tests.simulation import broker
from tests.simulation.disabled_checks import ignore_offsets_of_announcements, ignore_positions


def _publications_are_not_held(patch: pytest.MonkeyPatch) -> None:
    """Publications that arrive while a subscription is catching up are dropped."""
    patch.setattr(Subscription, "hold", lambda self, *arguments: None)
    # The check of offsets would find the first missing one, so this defect disables it as well.
    ignore_offsets_of_announcements(patch)


def _subscription_is_added_to_the_hub_after_the_read(patch: pytest.MonkeyPatch) -> None:
    """The subscription is added to the hub only after history was read."""
    add, go_live = Hub.add, Subscription.go_live
    hubs: dict[Subscription, Hub] = {}

    def remember(self: Hub, subscription: Subscription) -> None:
        hubs[subscription] = self

    def go_live_late(self: Subscription, top: StreamPosition | None) -> list[Any]:
        add(hubs[self], self)
        return go_live(self, top)

    patch.setattr(Hub, "add", remember)
    patch.setattr(Subscription, "go_live", go_live_late)
    ignore_offsets_of_announcements(patch)


def _merge_keeps_duplicates(patch: pytest.MonkeyPatch) -> None:
    """Merge returns every held publication, even if history contains it."""

    def keep_all(held: Sequence[Held], top: StreamPosition) -> tuple[list[Any], int]:
        items = [entry.item for entry in held]
        return items, max([top.offset, *(item.offset for item in items)])

    patch.setattr(subscription_module, "_merge", keep_all)


def _recovery_always_succeeds(patch: pytest.MonkeyPatch) -> None:
    """Recovery reports success even if history does not have everything."""
    patch.setattr(prepare, "recover_stream", lambda since, page: Recovery(True, page.publications))


def _recovery_always_fails(patch: pytest.MonkeyPatch) -> None:
    """Recovery reports failure even if history has everything."""

    def fail(since: StreamPosition, page: HistoryPage) -> Recovery:
        return Recovery(False, ())

    patch.setattr(prepare, "recover_stream", fail)


def _subscription_is_live_from_the_start(patch: pytest.MonkeyPatch) -> None:
    """The subscription is live from the start, so publications overtake its reply."""
    init = Subscription.__init__

    def live(self: Subscription, *arguments: Any, **more: Any) -> None:
        init(self, *arguments, **more)
        self.phase = SubscriptionPhase.LIVE
        self.seen = subscription_module.ANY

    patch.setattr(Subscription, "__init__", live)
    assert HELD != subscription_module.ANY


def _recovery_ignores_the_epoch(patch: pytest.MonkeyPatch) -> None:
    """The broker does not compare epochs."""
    continues = broker.continues_from

    def ignore_epoch(since: StreamPosition, predecessor: int, epoch: str) -> bool:
        return continues(StreamPosition(since.offset, epoch), predecessor, epoch)

    patch.setattr(broker, "continues_from", ignore_epoch)


def _recovery_ignores_missing_publications(patch: pytest.MonkeyPatch) -> None:
    """Recovery does not ask whether history continues from the position."""

    def ignore_continues(since: StreamPosition, page: HistoryPage) -> Recovery:
        return recovery.recover_stream(since, HistoryPage(page.publications, page.position, True))

    patch.setattr(prepare, "recover_stream", ignore_continues)


def _recovery_starts_with_a_patch(patch: pytest.MonkeyPatch) -> None:
    """The first recovered publication is a patch from a publication of the previous connection."""

    encode = Patched.encode

    def start_with_a_base(self: Patched, channel: str, epoch: str, publications: Sequence[Publication]) -> Any:
        if self.base is None and publications:
            earlier = Raw(b'"a publication of an earlier connection"')
            self.base = Publication(earlier, offset=publications[0].offset - 1)
        return encode(self, channel, epoch, publications)

    patch.setattr(Patched, "encode", start_with_a_base)


def _filter_is_applied_before_the_continuity_check(patch: pytest.MonkeyPatch) -> None:
    """Recovery checks continuity after filtering."""
    recover_stream = recovery.recover_stream

    def check_selected(since: StreamPosition, page: HistoryPage) -> Recovery:
        left = [publication for publication in page.publications if (publication.tags or {}).get("kind") != "unwanted"]
        continues = page.continues and left[:1] == page.publications[:1]
        return recover_stream(since, HistoryPage(left, page.position, continues))

    patch.setattr(prepare, "recover_stream", check_selected)


def _conflation_is_applied_before_the_continuity_check(patch: pytest.MonkeyPatch) -> None:
    """Recovery checks only the latest publication, which always exists."""
    recover_stream = recovery.recover_stream

    def check_selected(since: StreamPosition, page: HistoryPage) -> Recovery:
        return recover_stream(since, HistoryPage(page.publications[-1:], page.position, True))

    patch.setattr(prepare, "recover_stream", check_selected)


def _publications_are_not_held_between_pieces(patch: pytest.MonkeyPatch) -> None:
    """Publications that arrive while a later piece of a recovery is read are dropped."""
    patch.setattr(Subscription, "hold_again", lambda self: None)
    ignore_offsets_of_announcements(patch)
    ignore_positions(patch)


def _subscription_is_live_after_the_first_piece(patch: pytest.MonkeyPatch) -> None:
    """Publications that do not fit into the reply count as sent."""
    patch.setattr(Subscription, "fall_behind", lambda self, reached: None)


def _continuity_is_not_checked_between_pieces(patch: pytest.MonkeyPatch) -> None:
    """Nothing checks that history still has the publications after a piece."""
    patch.setattr(recover_in_pieces, "read_on", lambda since, page: page.publications)


def _recovery_continues_after_the_subscription_ended(patch: pytest.MonkeyPatch) -> None:
    """A recovery in pieces continues although its subscription has ended."""
    end = Subscription.end

    def keep(self: Subscription) -> None:
        reached = self.reached
        end(self)
        self.reached = reached

    patch.setattr(Subscription, "end", keep)


def _positions_that_were_lost_are_accepted(patch: pytest.MonkeyPatch) -> None:
    """A subscription does not notice that the stream has leapt over its position."""
    advance = subscription_module._advance

    def accept(seen: int, epoch: str, item: Item) -> int:
        return advance(item.previous if item.previous < seen < item.offset else seen, epoch, item)

    patch.setattr(subscription_module, "_advance", accept)


DEFECTS: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    _publications_are_not_held,
    _subscription_is_added_to_the_hub_after_the_read,
    _merge_keeps_duplicates,
    _recovery_always_succeeds,
    _recovery_always_fails,
    _subscription_is_live_from_the_start,
    _recovery_ignores_the_epoch,
    _recovery_ignores_missing_publications,
    _recovery_starts_with_a_patch,
    _filter_is_applied_before_the_continuity_check,
    _conflation_is_applied_before_the_continuity_check,
    _publications_are_not_held_between_pieces,
    _subscription_is_live_after_the_first_piece,
    _continuity_is_not_checked_between_pieces,
    _recovery_continues_after_the_subscription_ended,
    _positions_that_were_lost_are_accepted,
)
