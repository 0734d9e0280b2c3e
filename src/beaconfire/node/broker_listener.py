"""From the broker's announcements to the hub."""

from __future__ import annotations

from collections.abc import Sequence

from beaconfire.channels.attachments import Attachments
from beaconfire.channels.periodic import PeriodicWork
from beaconfire.delivery.hub import Hub
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.pushes import JoinPush, LeavePush
from beaconfire.node.healing import Healing
from beaconfire.node.revocation_stream import RevocationStream


class BrokerListener:
    """Implements `engines.port.BrokerEvents`."""

    def __init__(
        self,
        hub: Hub,
        attachments: Attachments,
        healing: Healing,
        presence_upkeep: PeriodicWork,
        revocations: RevocationStream,
    ) -> None:
        """The hub passes the publications of channels without subscribers to `revocations`."""
        self._hub = hub
        self._attachments = attachments
        self._healing = healing
        self._presence_upkeep = presence_upkeep
        self._revocations = revocations
        hub.on_unsubscribed = revocations.on_publication

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
        """Subscribers keep their subscriptions: nobody is told before it is known whether anything is missing."""
        self._attachments.link_down(channels)
        self._revocations.on_link_down(channels)

    def on_link_up(self, channels: Sequence[str] | None) -> None:
        """Attaches the channels again, and finds what was published meanwhile. Presence is refreshed soon, because its
        entries may have expired, or the engine may have lost them."""
        self._attachments.link_up(channels)
        self._healing.heal_all(channels)
        self._presence_upkeep.hurry()
        self._revocations.on_link_up(channels)
