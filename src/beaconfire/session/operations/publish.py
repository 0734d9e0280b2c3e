"""Publishing: from SDKs, from the plain protocol's rooms, and into its lobby."""

from __future__ import annotations

from msgspec import Raw

from beaconfire.base.errors import (
    BAD_PROTOCOL,
    Disconnect,
)
from beaconfire.channels.data_format import check_data
from beaconfire.engines.port import PublishOutcome
from beaconfire.model.requests import LobbyFrame, PublishRequest, RoomMessage
from beaconfire.model.results import PublishResult
from beaconfire.session.session import Session


async def publish(session: Session, ref: object, request: PublishRequest) -> None:
    """The publisher gets its own publication if it is subscribed."""
    if not request.channel:
        raise Disconnect(BAD_PROTOCOL, "publish: channel must not be empty")
    outcome = await _publish(session, request.channel, request.data)
    session.reply(ref, PublishResult(outcome.position.offset, outcome.position.epoch))


async def room_message(session: Session, ref: object, request: RoomMessage) -> None:
    """As publish, but the sender hears it only with `echo`; the answer means that it is stored."""
    exclude = () if request.echo else (session.client,)
    outcome = await _publish(session, request.channel, request.data, exclude)
    session.reply(ref, PublishResult(outcome.position.offset, outcome.position.epoch))


async def _publish(session: Session, channel: str, data: Raw, exclude: tuple[str, ...] = ()) -> PublishOutcome:
    node = session.node
    namespace = session.namespace(channel)
    subscribed = channel in session.subscriptions
    data = await node.policy.publish(session.identity, subscribed, channel, namespace, data)
    check_data(data, namespace)
    return await node.publish(channel, namespace, data, session.info(channel), exclude=exclude)


async def lobby_frame(session: Session, ref: object, request: LobbyFrame) -> None:
    """Everyone in the lobby gets the frame, the sender too. Being connected is permission enough."""
    channel = session.traits.lobby
    assert channel is not None, "the codec makes lobby frames only where there is a lobby"
    namespace = session.node.namespaces.resolve(channel)
    await session.node.publish(channel, namespace, request.data, session.info(channel), request.tags)
