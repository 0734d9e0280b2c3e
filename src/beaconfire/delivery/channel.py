"""A channel with subscribers on this node: its members, and what it has to say next."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from beaconfire.delivery.batch import Batch, Item
from beaconfire.delivery.subscription import Subscription
from beaconfire.model.publication import Publication

STRATEGY_BATCH_MAX = 64
"""Items of one batch where somebody gets something of their own. It bounds what one step of a walk costs: a filter is
asked for each of them."""


class Walk:
    """One batch on its way to those who get something of their own, which may take more than one turn.

    Meanwhile nothing else of the channel is fanned out. Who leaves is taken out of `waiting` and given the batch then;
    who joins is not among them.
    """

    __slots__ = ("batch", "begun", "spent_s", "subscribers", "waiting")

    def __init__(self, batch: Batch, local: LocalChannel) -> None:
        self.batch = batch
        self.waiting = dict(reversed((local.with_strategy or {}).items()))
        """Whom the batch has not reached yet, by client; the last comes next, because a dict gives that up cheapest."""
        self.subscribers = len(local)
        """Members when the walk began, tailored or not."""
        self.begun = False
        self.spent_s = 0.0


class LocalChannel:
    """Members are keyed by client, since a session is in a channel once."""

    __slots__ = ("epoch", "latest", "namespace", "pending", "subscriptions", "walk", "with_strategy")

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.subscriptions: dict[str, Subscription] = {}
        self.with_strategy: dict[str, Subscription] | None = None
        """Those who get something of their own; None while there are none."""
        self.pending: list[Item] = []
        self.walk: Walk | None = None
        """The walk that is under way."""
        self.latest: Publication | None = None
        """What everybody was given last, and the epoch of its stream. Kept only while somebody is tailored to."""
        self.epoch = ""

    def __len__(self) -> int:
        return len(self.subscriptions) + (len(self.with_strategy) if self.with_strategy is not None else 0)

    def members(self) -> Iterator[Subscription]:
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
        if subscription.strategy is None:
            del self.subscriptions[subscription.client]
        else:
            assert self.with_strategy is not None, "it is a member"
            del self.with_strategy[subscription.client]
            if not self.with_strategy:
                self.with_strategy = self.latest = None

    def begin_walk(self) -> Batch:
        """Takes a batch of what is pending, from the beginning, and has it reach the tailored by `walk`."""
        assert self.walk is None, "one after the other"
        batch = Batch(self.pending[:STRATEGY_BATCH_MAX])
        del self.pending[:STRATEGY_BATCH_MAX]
        self.walk = Walk(batch, self)
        return batch

    def take(self, publication: Publication, epoch: str) -> Publication | None:
        """Notes what everybody is given now, and returns what they were given before: None in another epoch."""
        before = self.latest
        if publication.offset and epoch != self.epoch:
            self.epoch = epoch
            before = None
        self.latest = publication
        return before
