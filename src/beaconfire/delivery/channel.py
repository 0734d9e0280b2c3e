"""One channel on this node: its local subscriptions, its pending items, and the walk over its subscriptions."""

from __future__ import annotations

from collections.abc import Sequence

from beaconfire.delivery.batch import Batch
from beaconfire.delivery.item import Item
from beaconfire.delivery.subscription import NEVER, Subscription
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication

STRATEGY_BATCH_MAX = 64
"""Items of one batch in a channel where a subscription has a strategy. The limit bounds the cost of one step of a walk,
because each filter is applied to each item."""


UNKNOWN_EPOCH = "_"
"""The epoch of a channel whose subscriptions are in different epochs. No stream has this name."""


class Walk:
    """The rest of the delivery of one batch to the subscriptions of its channel, in later slices of time.

    Theory of operation. The subscriptions of a channel are numbered in the order in which they were added, and they are
    visited in this order. So one number says which of them the batch has reached, at no cost per delivery, and joins
    and leaves during the walk cost the same for any number of subscriptions. A subscription that is added has a higher
    number than the last one of the walk. A subscription that leaves gets the batch when it leaves, unless it was
    visited; the walk finds it ended when it comes to it.

    Meanwhile nothing else of the channel is fanned out.
    """

    __slots__ = ("batch", "last", "left", "spent_s", "subscribers", "visited")

    def __init__(
        self, batch: Batch, left: Sequence[Subscription], visited: int, subscribers: int, spent_s: float
    ) -> None:
        """`left` are the subscriptions to visit, in the order of their numbers, at least one."""
        self.batch = batch
        self.left = iter(left)
        self.visited = visited
        """The batch has reached the subscription with this number, and all before it."""
        self.last = left[-1].number
        """The number of the last subscription to visit."""
        self.subscribers = subscribers
        """The number of all subscriptions of the walk."""
        self.spent_s = spent_s

    def is_to_visit(self, subscription: Subscription) -> bool:
        """The batch has not reached this subscription yet, and is going to."""
        return self.visited < subscription.number <= self.last


class LocalChannel:
    """Subscriptions are keyed by client id, because a session is in a channel once.

    `announced_offset` and `epoch` are the position of the last stored publication that the hub was given, or, before
    the first one, the lowest position up to which a subscription has read history. The offset is None before both.
    `delivered_offset` is that of the last stored publication that the hub was given, 0 before the first one.
    `latest` is the last publication. It is kept only while a subscription has a strategy.
    """

    __slots__ = (
        "announced_offset",
        "delivered_offset",
        "epoch",
        "latest",
        "namespace",
        "numbers",
        "pending",
        "strategies",
        "subscriptions",
        "walk",
    )

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.subscriptions: dict[str, Subscription] = {}
        """In the order of their numbers."""
        self.numbers = 0
        """The number of the subscription that was added last."""
        self.strategies = 0
        """How many subscriptions are not plain."""
        self.pending: list[Item] = []
        self.walk: Walk | None = None
        """The walk that is not over, after its first slice."""
        self.announced_offset: int | None = None
        self.delivered_offset = 0
        self.epoch = ""
        self.latest: Publication | None = None

    def add(self, subscription: Subscription) -> None:
        """The subscription does not get items that are pending or on their way already."""
        self.numbers += 1
        subscription.local = self
        subscription.number = self.numbers
        if subscription.strategy.is_plain:
            subscription.whole_number = self.numbers
        else:
            subscription.whole_number = NEVER
            self.strategies += 1
        self.subscriptions[subscription.client] = subscription

    def remove(self, subscription: Subscription) -> None:
        """The subscription must be in the channel."""
        del self.subscriptions[subscription.client]
        subscription.local = None
        if not subscription.strategy.is_plain:
            self.strategies -= 1
            if not self.strategies:
                self.latest = None

    def take_batch(self) -> Batch:
        """Makes a batch of the first pending items. The channel must have some, and no walk."""
        items = self.pending
        if not self.strategies or len(items) <= STRATEGY_BATCH_MAX:
            self.pending = []
        else:
            self.pending = items[STRATEGY_BATCH_MAX:]
            del items[STRATEGY_BATCH_MAX:]
        return Batch(items)

    def note(self, publication: Publication, epoch: str) -> Publication | None:
        """Keeps the position of the publication, and the publication as the latest while a subscription needs it.

        Returns the publication before it, or None if that is not known or was in another epoch.
        """
        before = self.latest
        offset = publication.offset
        if offset:
            if epoch != self.epoch:
                self.announced_offset = offset
                self.epoch = epoch
                before = None
            elif self.announced_offset is None or offset > self.announced_offset:
                self.announced_offset = offset
            self.delivered_offset = offset
        if self.strategies:
            self.latest = publication
        return before

    def restart(self, position: StreamPosition | None) -> None:
        """Continues at this position after a gap. None if the position is not known."""
        self.delivered_offset = 0
        if position is None:
            self.announced_offset = None
            return
        if position.epoch != self.epoch:
            self.latest = None  # as in `on_read`
        self.announced_offset, self.epoch = position

    @property
    def announced(self) -> StreamPosition | None:
        """The position that the channel has reached on this node. None if it is not known."""
        return None if self.announced_offset is None else StreamPosition(self.announced_offset, self.epoch)

    def undelivered(self, subscription: Subscription) -> list[Item]:
        """What the hub was given for this subscription and has not handed to it yet, in order."""
        walk = self.walk
        waiting = self.pending
        if walk is not None and walk.is_to_visit(subscription):
            waiting = [*walk.batch.items, *waiting]
        return [item for item in waiting if item.number_max >= subscription.number]

    def on_read(self, position: StreamPosition) -> None:
        """A subscription has history up to this position, and needs what comes after it.

        If subscriptions disagree, one of them has read history before a loss. The channel then takes the position that
        needs to be compared with the stream: the older one, or an unknown epoch.
        """
        announced = self.announced_offset
        if announced is None:
            if position.epoch != self.epoch:
                self.latest = None  # the offsets of another epoch do not identify publications of this one
            self.announced_offset, self.epoch = position
        elif position.epoch != self.epoch:
            self.epoch = UNKNOWN_EPOCH
            self.latest = None
        elif position.offset < announced and self.delivered_offset < announced:
            self.announced_offset = max(position.offset, self.delivered_offset)
