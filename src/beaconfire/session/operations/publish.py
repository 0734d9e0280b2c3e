"""Publish commands: of SDKs, of the plain protocol, and into its lobby."""

from __future__ import annotations

from msgspec import Raw

from beaconfire.base.errors import BAD_PROTOCOL, Disconnect
from beaconfire.channels.data_format import check_data
from beaconfire.channels.namespaces import Namespaces
from beaconfire.channels.service import ChannelService
from beaconfire.engines.port import PublishOutcome
from beaconfire.model.requests import LobbyFrame, PublishRequest, RoomMessage
from beaconfire.model.results import PublishResult
from beaconfire.policy.port import Policy
from beaconfire.session.operations.lookup import ChannelLookup
from beaconfire.session.session import Session


class PublishHandler:
    """The reply to a publish command means that the publication is stored."""

    def __init__(self, policy: Policy, lookup: ChannelLookup, namespaces: Namespaces, channels: ChannelService) -> None:
        self._policy = policy
        self._lookup = lookup
        self._namespaces = namespaces
        self._channels = channels

    async def publish(self, session: Session, ref: object, request: PublishRequest) -> None:
        """The publisher receives its own publication if it is subscribed."""
        if not request.channel:
            raise Disconnect(BAD_PROTOCOL, "publish: channel must not be empty")
        outcome = await self._publish(session, request.channel, request.data)
        session.reply(ref, PublishResult(outcome.position.offset, outcome.position.epoch))

    async def room_message(self, session: Session, ref: object, request: RoomMessage) -> None:
        """Like `publish`, but the sender receives its own message only with `echo`."""
        exclude = () if request.echo else (session.client,)
        outcome = await self._publish(session, request.channel, request.data, exclude)
        session.reply(ref, PublishResult(outcome.position.offset, outcome.position.epoch))

    async def _publish(
        self, session: Session, channel: str, data: Raw, exclude: tuple[str, ...] = ()
    ) -> PublishOutcome:
        namespace = self._lookup.namespace(session, channel)
        subscribed = channel in session.subscriptions
        data = await self._policy.publish(session.identity, subscribed, channel, namespace, data)
        check_data(data, namespace)
        return await self._channels.publish(channel, namespace, data, session.info(channel), exclude=exclude)

    async def lobby_frame(self, session: Session, ref: object, request: LobbyFrame) -> None:
        """Sends the frame to every connection in the lobby, the sender too. A connection needs no permission."""
        channel = session.traits.lobby
        assert channel is not None, "the codec makes lobby frames only for endpoints with a lobby"
        namespace = self._namespaces.resolve(channel)
        await self._channels.publish(channel, namespace, request.data, session.info(channel), request.tags)
