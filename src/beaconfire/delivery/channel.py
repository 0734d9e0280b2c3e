"""One channel on this node: its local subscriptions, and its pending items."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from beaconfire.delivery.batch import Batch, Item
from beaconfire.delivery.subscription import Subscription
from beaconfire.model.publication import Publication

STRATEGY_BATCH_MAX = 64
"""Items of one batch in a channel where a subscription has a strategy. The limit bounds the cost of one step of a walk,
because each filter is applied to each item."""


class Walk:
    """The delivery of one batch to the subscriptions with a strategy, which may take more than one turn.

    Meanwhile nothing else of the channel is fanned out. A subscription that ends is taken out of `waiting` and gets the
    batch then. A new subscription is not in `waiting`.
    """

    __slots__ = ("batch", "begun", "spent_s", "subscribers", "waiting")

    def __init__(self, batch: Batch, local: LocalChannel) -> None:
        self.batch = batch
        self.waiting = dict(reversed((local.with_strategy or {}).items()))
        """The subscriptions that the batch has not reached, by client. The last one is next: `popitem` is cheapest."""
        self.subscribers = len(local)
        """All subscriptions of the channel when the walk began."""
        self.begun = False
        self.spent_s = 0.0


class LocalChannel:
    """Subscriptions are keyed by client id, because a session is in a channel once."""

    __slots__ = ("epoch", "latest", "namespace", "pending", "subscriptions", "walk", "with_strategy")

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.subscriptions: dict[str, Subscription] = {}
        """The subscriptions without a strategy."""
        self.with_strategy: dict[str, Subscription] | None = None
        """The subscriptions with a strategy. None if there are none."""
        self.pending: list[Item] = []
        self.walk: Walk | None = None
        """The walk that is not over."""
        self.latest: Publication | None = None
        """The last publication, and the epoch of its stream. Kept only while a subscription has a strategy."""
        self.epoch = ""

    def __len__(self) -> int:
        return len(self.subscriptions) + (len(self.with_strategy) if self.with_strategy is not None else 0)

    def members(self) -> Iterator[Subscription]:
        """All subscriptions."""
        return chain(self.subscriptions.values(), self.with_strategy.values() if self.with_strategy is not None else ())

    def find(self, client: str) -> Subscription | None:
        found = self.subscriptions.get(client)
        if found is None and self.with_strategy is not None:
            found = self.with_strategy.get(client)
        return found

    def add(self, subscription: Subscription) -> None:
        if subscription.strategy is None:
            self.subscriptions[subscription.client] = subscription
        else:
            if self.with_strategy is None:
                self.with_strategy = {}
            self.with_strategy[subscription.client] = subscription

    def remove(self, subscription: Subscription) -> None:
        """The subscription must be in the channel."""
        if subscription.strategy is None:
            del self.subscriptions[subscription.client]
        else:
            assert self.with_strategy is not None, "the subscription is in the channel"
            del self.with_strategy[subscription.client]
            if not self.with_strategy:
                self.with_strategy = self.latest = None

    def begin_walk(self) -> Batch:
        """Makes a batch of the first pending items, and starts its walk."""
        assert self.walk is None, "a channel has one walk at a time"
        batch = Batch(self.pending[:STRATEGY_BATCH_MAX])
        del self.pending[:STRATEGY_BATCH_MAX]
        self.walk = Walk(batch, self)
        return batch

    def note_latest(self, publication: Publication, epoch: str) -> Publication | None:
        """Keeps the publication as the latest. Returns the one before, or None if its epoch was another one."""
        before = self.latest
        if publication.offset and epoch != self.epoch:
            self.epoch = epoch
            before = None
        self.latest = publication
        return before
