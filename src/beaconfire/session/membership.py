"""Adds subscriptions to the hub, the broker and the presence store, and removes them again."""

from __future__ import annotations

from beaconfire.channels.attachments import Attachments
from beaconfire.channels.lanes import Lanes
from beaconfire.channels.periodic import PeriodicWork
from beaconfire.delivery.hub import Hub
from beaconfire.delivery.subscription import Subscription
from beaconfire.engines.port import MemberChange
from beaconfire.model.events import EventSink, Subscribed, Unsubscribed


class Memberships:
    """The subscriptions of one node, in the hub and in the engine.

    `presence_upkeep` and `position_upkeep` work for channels from their first subscription that needs them.
    """

    def __init__(
        self,
        hub: Hub,
        attachments: Attachments,
        lanes: Lanes,
        presence_upkeep: PeriodicWork,
        position_upkeep: PeriodicWork,
        events: EventSink,
    ) -> None:
        self._hub = hub
        self._attachments = attachments
        self._lanes = lanes
        self._presence_upkeep = presence_upkeep
        self._position_upkeep = position_upkeep
        self._events = events

    def add(self, subscription: Subscription) -> None:
        """Adds the subscription to the hub. It receives what is published from now on."""
        self._hub.add(subscription)

    async def attach(self, channel: str) -> None:
        """Like `Attachments.attach`."""
        await self._attachments.attach(channel)

    async def add_presence(self, subscription: Subscription) -> None:
        """Adds the presence entry of a subscription with presence. Raises what the engine raises.

        Does nothing for a subscription that was removed meanwhile: its entry would stay.
        """
        if subscription.options.presence and not subscription.removed:
            await self._lanes.add(subscription.channel, subscription.info)

    def update_presence(self, subscription: Subscription) -> None:
        """Replaces the presence entry of a subscription whose `info` has changed."""
        if subscription.options.presence:
            self._lanes.replace(subscription.channel, subscription.info)

    def complete(self, subscription: Subscription) -> None:
        """Announces the join. Call this method after the subscribe reply is queued."""
        subscription.replied = True
        channel, options = subscription.channel, subscription.options
        if options.presence:
            self._presence_upkeep.add(channel)
        if options.positioned:
            self._position_upkeep.add(channel)
        if options.announces_join_leave:
            self._lanes.announce(channel, MemberChange(True, subscription.info))
        self._events.emit(Subscribed(subscription.client, channel, subscription.namespace.name))

    def remove(self, subscription: Subscription, code: int) -> None:
        """Ends the subscription with this unsubscribe code, and announces the leave. Idempotent.

        The channel is detached from the broker after `engine.detach_delay` if it has no subscribers by then.
        """
        was_last = self._hub.remove(subscription)
        if subscription.removed:
            return
        subscription.removed = True
        channel, options = subscription.channel, subscription.options
        if was_last:
            self._attachments.release(channel)
        announces = options.announces_join_leave and subscription.replied
        leave = MemberChange(False, subscription.info) if announces else None
        if options.presence:
            self._lanes.remove(channel, subscription.client, leave)
        elif leave is not None:
            self._lanes.announce(channel, leave)
        if subscription.replied:
            self._events.emit(Unsubscribed(subscription.client, channel, subscription.namespace.name, code))
