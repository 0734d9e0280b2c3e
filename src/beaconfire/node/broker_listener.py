"""From the broker's announcements to the hub."""

from __future__ import annotations

from collections.abc import Sequence

from beaconfire.delivery.hub import Hub
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.pushes import JoinPush, LeavePush


class BrokerListener:
    """Implements `engines.port.BrokerEvents`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        previous: int,
        exclude: Sequence[str],
        delta: bool = False,
    ) -> None:
        self._hub.publish(channel, publication, epoch, exclude, delta, previous)

    def on_join(self, channel: str, info: ClientInfo) -> None:
        self._hub.announce(JoinPush(channel, info))

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        self._hub.announce(LeavePush(channel, info))

    def on_link_down(self, channels: Sequence[str] | None) -> None:
        """Makes every subscription with a position recover, because publications may be missing."""
        for channel in [name for name, _ in self._hub.channels()] if channels is None else channels:
            for subscription in self._hub.subscribers(channel):
                if subscription.options.positioned:
                    subscription.owner.on_gap(subscription, "the link to the broker was lost")

    def on_link_up(self, channels: Sequence[str] | None) -> None:
        """Does nothing: the subscriptions have been told to recover when the link was lost."""
