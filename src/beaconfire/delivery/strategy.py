"""The port of delivery strategies: what one subscription receives of the publications that it is entitled to.

The hub decides which items reach a subscription: not those that exclude its client, that it has already, or that came
before it. It hands these items to the strategy of the subscription, which delivers all of them, or some, or another
form of them. A strategy is one of

* a *form*, which says how publications look: `Plain` or `Patched`;
* a *layer* around another strategy, which says which publications are delivered, and when: `Filtered`, `Conflated`.

Items are publications, joins and leaves; layers usually hand on joins and leaves as they are. A subscription gets
publications in two ways: live by `deliver`, and after a recovery by `select` and `encode`. A layer that leaves
publications out does so in both.

So combinations need no code of their own: `Filtered(Conflated(Patched()))` gets the newest of the publications that
pass a filter, as patches. Publications that a strategy leaves out count as received when gaps are detected, because the
client does not want them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from beaconfire.base.loop import Schedule
from beaconfire.base.timers import Timers
from beaconfire.delivery.batch import Batch
from beaconfire.delivery.delivery_schedule import DeliverySchedule
from beaconfire.delivery.item import Item
from beaconfire.delivery.outbox import Outbox
from beaconfire.delivery.patches import Patches
from beaconfire.model.publication import Publication
from beaconfire.protocols.port import Wire


class Target(Protocol):
    """The part of a subscription that its strategy uses."""

    @property
    def channel(self) -> str: ...

    @property
    def wire(self) -> Wire: ...

    @property
    def outbox(self) -> Outbox: ...

    @property
    def is_positioned(self) -> bool:
        """The subscription gets the publications of one epoch, by their offsets."""

    @property
    def strategy(self) -> DeliveryStrategy: ...

    def report_undeliverable(self) -> None:
        """The session's encoding cannot express a publication. The session may end."""


class StrategyContext:
    """What the strategies of one hub share.

    `patches_total` counts publications that were sent as a patch, `filtered_total` those that a filter kept from a
    subscription, and `conflated_total` those that were left out in favour of a newer one.
    """

    __slots__ = ("conflated_total", "filtered_total", "now_s", "patches", "patches_total", "schedule", "turn_s")

    def __init__(
        self,
        patches: Patches,
        timers: Timers,
        schedule: Schedule,
        resume: Callable[[Sequence[Target]], None],
    ) -> None:
        """`resume` calls `DeliveryStrategy.resume` for each subscription, and does not raise."""
        self.patches = patches
        self.now_s = timers.clock.now_s
        self.schedule: DeliverySchedule[Target] = DeliverySchedule(timers, schedule, resume)
        """When `resume` is called for a subscription."""
        self.turn_s = 0.0
        """The time of the current turn. Subscriptions that are sent something in the same turn are due together."""
        self.patches_total = 0
        self.filtered_total = 0
        self.conflated_total = 0


class DeliveryStrategy:
    """One object belongs to one subscription, except for `Plain`. No method suspends or calls code outside `delivery`.

    The methods of this class deliver everything at once and as it is.
    """

    __slots__ = ()

    @property
    def is_plain(self) -> bool:
        """The subscription gets every item as it is, at once, so the hub may append shared frames by itself."""
        return False

    @property
    def has_patches(self) -> bool:
        """The client is told that publications may be patches."""
        return False

    @property
    def is_conflated(self) -> bool:
        """Publications may be left out in favour of newer ones, and the newest one may be held for a while."""
        return False

    @property
    def held_since(self) -> int | None:
        """The offset before the first publication that is held or left out since the last one that was sent. The client
        recovers from there. None if there is none, or none in the stream."""
        return None

    def deliver(self, batch: Batch, indexes: tuple[int, ...], target: Target) -> int:
        """Delivers these items of a batch, at least one, in order. Pass `batch.everything` for all of them.

        Returns how many items were appended to the outbox now. Raises PayloadError if one of them cannot be encoded.
        """
        target.outbox.append(batch.selection(target.wire, indexes))
        return len(indexes)

    def deliver_update(self, item: Item, left_out: int, target: Target) -> int:
        """Delivers one publication, of which the client learns that `left_out` publications before it were left out.

        A form must implement this method. A layer that holds publications calls this method of the strategy inside it,
        so a layer inside it that leaves publications out would not be asked: it must be outside. Returns 1. Raises
        PayloadError.
        """
        raise NotImplementedError

    def select(self, publications: Sequence[Publication]) -> Sequence[Publication]:
        """The missed publications, read from history, that the client gets in a recovery.

        The caller must have decided before whether publications are missing.
        """
        return publications

    def encode(self, channel: str, epoch: str, publications: Sequence[Publication]) -> Sequence[Publication]:
        """Publications that `select` returned, in the form in which the client gets them next, in order.

        Raises PayloadError.
        """
        return publications

    def resume(self, target: Target) -> int:
        """The connection takes data again, or a held publication is due. Returns and raises like `deliver`."""
        return 0

    def end(self, target: Target) -> None:
        """The subscription has ended: drops what is held. Idempotent."""


class Layer(DeliveryStrategy):
    """Changes some of what the strategy inside it does. This class changes nothing."""

    __slots__ = ("inner",)

    def __init__(self, inner: DeliveryStrategy) -> None:
        self.inner = inner

    @property
    def has_patches(self) -> bool:
        return self.inner.has_patches

    @property
    def is_conflated(self) -> bool:
        return self.inner.is_conflated

    @property
    def held_since(self) -> int | None:
        return self.inner.held_since

    def deliver(self, batch: Batch, indexes: tuple[int, ...], target: Target) -> int:
        return self.inner.deliver(batch, indexes, target)

    def deliver_update(self, item: Item, left_out: int, target: Target) -> int:
        return self.inner.deliver_update(item, left_out, target)

    def select(self, publications: Sequence[Publication]) -> Sequence[Publication]:
        return self.inner.select(publications)

    def encode(self, channel: str, epoch: str, publications: Sequence[Publication]) -> Sequence[Publication]:
        return self.inner.encode(channel, epoch, publications)

    def resume(self, target: Target) -> int:
        return self.inner.resume(target)

    def end(self, target: Target) -> None:
        self.inner.end(target)
