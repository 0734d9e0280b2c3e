"""Checks of the server that hide planted defects. Without them, only the clients of the simulation find a defect."""

from __future__ import annotations

import pytest

from beaconfire.delivery import subscription as subscription_module
from beaconfire.delivery.channel import LocalChannel
from beaconfire.delivery.healer import Announcement
from beaconfire.delivery.hub import Hub
from beaconfire.delivery.item import Item
from beaconfire.delivery.subscription import Gap, Subscription
from beaconfire.model.position import StreamPosition
from beaconfire.node.channel_upkeep import ChannelUpkeep


def advance_past_gaps(seen: int, epoch: str, item: Item) -> int:
    """Accepts every new offset of the epoch, even if offsets before it are missing, live and while catching up."""
    if item.epoch != epoch:
        raise Gap("another epoch")
    return max(seen, item.offset)


def accept_any_offset(self: Subscription, item: Item) -> bool:
    """As `advance_past_gaps`, for live subscriptions only."""
    before, self.seen = self.seen, advance_past_gaps(self.seen, self.epoch, item)
    return self.seen > before


def is_never_out_of_order(self: Hub, channel: str, local: LocalChannel, announcement: Announcement) -> bool:
    """Takes each announcement as the next one."""
    return False


def has_another_epoch(self: ChannelUpkeep, channel: str, top: StreamPosition) -> bool:
    """Does not compare offsets."""
    announced = self._hub.announced(channel)
    return announced is not None and announced.epoch != top.epoch


def ignore_offsets_of_announcements(patch: pytest.MonkeyPatch) -> None:
    """Neither the hub nor live subscriptions find missing publications."""
    patch.setattr(Subscription, "advance", accept_any_offset)
    patch.setattr(Hub, "_is_out_of_order", is_never_out_of_order)


def ignore_positions(patch: pytest.MonkeyPatch) -> None:
    """Offsets are not compared with those of the streams. That finds most defects of attachments in the end."""
    patch.setattr(ChannelUpkeep, "_is_behind", has_another_epoch)


def accept_missing_offsets(patch: pytest.MonkeyPatch) -> None:
    """Disables the checks that hide some defects. Without lost links it is no defect alone, because no announcement is
    missing then."""
    patch.setattr(subscription_module, "_advance", advance_past_gaps)
    patch.setattr(Hub, "_is_out_of_order", is_never_out_of_order)
    patch.setattr(ChannelUpkeep, "_is_behind", has_another_epoch)
