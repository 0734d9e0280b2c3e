"""Checks of the server that hide planted defects. Without them, only the clients of the simulation find a defect."""

from __future__ import annotations

import pytest

from beaconfire.delivery import subscription as subscription_module
from beaconfire.delivery.item import Item
from beaconfire.delivery.subscription import Gap, Subscription
from beaconfire.model.position import StreamPosition


def advance_past_gaps(seen: int, epoch: str, item: Item) -> int:
    """Accepts every new offset of the epoch, even if offsets before it are missing, live and while catching up."""
    if item.epoch != epoch:
        raise Gap("another epoch")
    return max(seen, item.offset)


def accept_any_offset(self: Subscription, item: Item) -> bool:
    """As `advance_past_gaps`, for live subscriptions only."""
    before, self.seen = self.seen, advance_past_gaps(self.seen, self.epoch, item)
    return self.seen > before


def compare_epochs(self: Subscription, top: StreamPosition) -> None:
    """Does not compare offsets."""
    if top.epoch != self.epoch:
        raise Gap("another epoch")


def accept_missing_offsets(patch: pytest.MonkeyPatch) -> None:
    """Disables the checks that hide some defects. Alone it is no defect, because the node learns of every loss."""
    patch.setattr(subscription_module, "_advance", advance_past_gaps)
    patch.setattr(Subscription, "check", compare_epochs)
