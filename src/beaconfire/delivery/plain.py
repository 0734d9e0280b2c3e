"""The strategy of most subscriptions: every publication, at once and as it was published."""

from __future__ import annotations

from typing import Final

from beaconfire.delivery.item import WHOLE, Item
from beaconfire.delivery.strategy import DeliveryStrategy, Target


class Plain(DeliveryStrategy):
    """Has no state, so all subscriptions share `PLAIN`."""

    __slots__ = ()

    @property
    def is_plain(self) -> bool:
        return True

    def deliver_update(self, item: Item, left_out: int, target: Target) -> int:
        target.outbox.append(item.single_frame(target.wire, left_out, WHOLE).frame)
        return 1


PLAIN: Final = Plain()
