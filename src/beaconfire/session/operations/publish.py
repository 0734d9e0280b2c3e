"""Publishing: of clients, of the server API, and of a protocol itself. The checks are the same for all."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Raw

from beaconfire.channels.data_format import check_data
from beaconfire.channels.namespaces import Namespace, Namespaces
from beaconfire.channels.service import ChannelService
from beaconfire.engines.port import PublishOutcome
from beaconfire.policy.port import PublicationAttempt, Via
from beaconfire.session.operations.decisions import Decisions
from beaconfire.session.operations.lookup import ChannelLookup, check_connected
from beaconfire.session.session import Session


class Publishing:
    """An outcome means that the publication is stored. Every method raises CommandError and Disconnect."""

    def __init__(
        self, decisions: Decisions, lookup: ChannelLookup, namespaces: Namespaces, channels: ChannelService
    ) -> None:
        self._decisions = decisions
        self._lookup = lookup
        self._namespaces = namespaces
        self._channels = channels

    async def publish(
        self, session: Session, channel: str, data: Raw, tags: Mapping[str, str] | None = None, *, echo: bool = True
    ) -> PublishOutcome:
        """Publishes for a client, if a policy permits. The publisher receives its own publication only with `echo`."""
        check_connected(session)
        namespace = self._lookup.namespace(session, channel)
        subscribed = channel in session.subscriptions
        attempt = PublicationAttempt(session, Via.COMMAND, channel, namespace, data, tags, subscribed)
        data = await self._decisions.publish(session, attempt)
        check_data(data, namespace)
        exclude = () if echo else (session.client,)
        return await self._channels.publish(channel, namespace, data, session.info(channel), tags, exclude=exclude)

    async def permit_for_api(
        self, channel: str, namespace: Namespace, data: Raw, tags: Mapping[str, str] | None = None
    ) -> Raw:
        """The data that the server API may publish, unless a policy refuses. The caller publishes it."""
        if self._decisions.asks_about_server_api:
            attempt = PublicationAttempt(None, Via.SERVER_API, channel, namespace, data, tags)
            data = await self._decisions.publish(None, attempt)
        check_data(data, namespace)
        return data

    async def publish_for_protocol(
        self, session: Session, channel: str, data: Raw, tags: Mapping[str, str] | None = None
    ) -> PublishOutcome:
        """Publishes what the protocol of a session itself sends. No permission is needed."""
        namespace = self._namespaces.resolve(channel)
        return await self._channels.publish(channel, namespace, data, session.info(channel), tags)
