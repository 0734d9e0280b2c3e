"""A channel with subscribers on this node: its members, and what it has to say next."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from beaconfire.batch import Item
from beaconfire.messages import Publication
from beaconfire.subscription import Subscription


class Room:
    """Members are keyed by client, since a session is in a channel once."""

    __slots__ = ("epoch", "latest", "namespace", "pending", "subscriptions", "tailored")

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.subscriptions: dict[str, Subscription] = {}
        self.tailored: dict[str, Subscription] | None = None
        """Those who get something of their own; None while there are none."""
        self.pending: list[Item] = []
        self.latest: Publication | None = None
        """What everybody was given last, and the epoch of its stream. Kept only while somebody is tailored to."""
        self.epoch = ""

    def __len__(self) -> int:
        return len(self.subscriptions) + (len(self.tailored) if self.tailored is not None else 0)

    def members(self) -> Iterator[Subscription]:
        return chain(self.subscriptions.values(), self.tailored.values() if self.tailored is not None else ())

    def find(self, client: str) -> Subscription | None:
        found = self.subscriptions.get(client)
        if found is None and self.tailored is not None:
            found = self.tailored.get(client)
        return found

    def add(self, subscription: Subscription) -> None:
        if subscription.tailoring is None:
            self.subscriptions[subscription.client] = subscription
        else:
            if self.tailored is None:
                self.tailored = {}
            self.tailored[subscription.client] = subscription

    def remove(self, subscription: Subscription) -> None:
        if subscription.tailoring is None:
            del self.subscriptions[subscription.client]
        else:
            assert self.tailored is not None, "it is a member"
            del self.tailored[subscription.client]
            if not self.tailored:
                self.tailored = self.latest = None

    def take(self, publication: Publication, epoch: str) -> Publication | None:
        """Notes what everybody is given now, and returns what they were given before: None in another epoch."""
        before = self.latest
        if publication.offset and epoch != self.epoch:
            self.epoch = epoch
            before = None
        self.latest = publication
        return before
