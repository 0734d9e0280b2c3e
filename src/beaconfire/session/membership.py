"""Adds subscriptions to the hub, the broker and the presence store, and removes them again."""

from __future__ import annotations

from typing import Final

from beaconfire.base.tasks import BackgroundTasks
from beaconfire.channels.attachments import Attachments
from beaconfire.delivery.hub import Hub
from beaconfire.delivery.subscription import Subscription
from beaconfire.engines.port import Broker, MemberChange, PresenceStore
from beaconfire.model.events import EventSink, Subscribed, Unsubscribed

PRESENCE_TTL_INTERVALS: Final = 2.2
"""Presence entries live this many refresh intervals, so that one refresh may fail without a client disappearing."""


class Memberships:
    """The subscriptions of one node, in the hub and in the engine."""

    def __init__(
        self,
        hub: Hub,
        attachments: Attachments,
        broker: Broker,
        presence: PresenceStore,
        background: BackgroundTasks,
        events: EventSink,
        presence_interval_s: float,
    ) -> None:
        """`presence_interval_s` is the time between two refreshes of a presence entry."""
        self._hub = hub
        self._attachments = attachments
        self._broker = broker
        self._presence = presence
        self._background = background
        self._events = events
        self._presence_ttl_s = presence_interval_s * PRESENCE_TTL_INTERVALS

    def add(self, subscription: Subscription) -> None:
        """Adds the subscription to the hub. It receives what is published from now on."""
        self._hub.add(subscription)

    async def attach(self, channel: str) -> None:
        """Like `Attachments.attach`."""
        await self._attachments.attach(channel)

    async def update_presence(self, subscription: Subscription) -> None:
        """Adds or refreshes the presence entry of a subscription with presence."""
        if subscription.options.presence:
            await self._presence.add(subscription.channel, [subscription.info], self._presence_ttl_s)
            if subscription.removed and self._hub.find(subscription.channel, subscription.client) is None:
                # The subscription ended meanwhile. Its entry may have been removed before it was added.
                await self._presence.remove(subscription.channel, [subscription.client])

    def complete(self, subscription: Subscription) -> None:
        """Announces the join. Call this method after the subscribe reply is queued."""
        subscription.replied = True
        if subscription.options.announces_join_leave:
            self._background.start(self._announce(subscription, joined=True))
        self._events.emit(Subscribed(subscription.client, subscription.channel, subscription.namespace.name))

    def remove(self, subscription: Subscription, code: int) -> None:
        """Ends the subscription with this unsubscribe code, and announces the leave. Idempotent.

        The channel is detached from the broker after `engine.detach_delay` if it has no subscribers by then.
        """
        was_last = self._hub.remove(subscription)
        if subscription.removed:
            return
        subscription.removed = True
        if was_last:
            self._attachments.release(subscription.channel)
        if subscription.options.presence or subscription.options.announces_join_leave:
            self._background.start(self._leave(subscription))
        if subscription.replied:
            channel, namespace = subscription.channel, subscription.namespace.name
            self._events.emit(Unsubscribed(subscription.client, channel, namespace, code))

    async def _leave(self, subscription: Subscription) -> None:
        if subscription.options.presence:
            await self._presence.remove(subscription.channel, [subscription.client])
        if subscription.options.announces_join_leave and subscription.replied:
            await self._announce(subscription, joined=False)

    async def _announce(self, subscription: Subscription, joined: bool) -> None:
        await self._broker.announce(subscription.channel, [MemberChange(joined, subscription.info)])
