"""Between our messages and the generated ones. The generated classes are known here and in the codec, nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, assert_never

from google.protobuf.message import Message
from msgspec import Raw

from beaconfire.errors import ErrorCode
from beaconfire.messages import (
    NO_PAYLOAD,
    ClientInfo,
    ConnectRequest,
    ConnectResult,
    DisconnectPush,
    FilterNode,
    HistoryRequest,
    HistoryResult,
    JoinPush,
    LeavePush,
    MessagePush,
    PingRequest,
    PingResult,
    PresenceRequest,
    PresenceResult,
    PresenceStatsRequest,
    PresenceStatsResult,
    Publication,
    PublicationPush,
    PublishRequest,
    PublishResult,
    Push,
    RefreshPush,
    RefreshRequest,
    RefreshResult,
    Request,
    Result,
    RPCRequest,
    RPCResult,
    SendRequest,
    SincePosition,
    SubRefreshRequest,
    SubRefreshResult,
    SubscribePush,
    SubscribeRequest,
    SubscribeResult,
    UnsubscribePush,
    UnsubscribeRequest,
    UnsubscribeResult,
)
from beaconfire.protocols.centrifuge import schema_pb2 as wire
from beaconfire.protocols.centrifuge.fields import error_message

# --- from the client -----------------------------------------------------------------------------------------------


def read_request(message: Message) -> Request:
    """Our message for any of the requests a Command may hold."""
    return _READERS[type(message)](message)


def _payload(data: bytes) -> Raw:
    return Raw(data) if data else NO_PAYLOAD


def _read_connect(message: wire.ConnectRequest) -> ConnectRequest:
    return ConnectRequest(
        token=message.token,
        data=_payload(message.data),
        subs={channel: _read_subscribe(sub) for channel, sub in message.subs.items()},
        name=message.name,
        version=message.version,
        headers=dict(message.headers),
    )


def _read_subscribe(message: wire.SubscribeRequest) -> SubscribeRequest:
    return SubscribeRequest(
        channel=message.channel,
        token=message.token,
        recover=message.recover,
        epoch=message.epoch,
        offset=message.offset,
        data=_payload(message.data),
        positioned=message.positioned,
        recoverable=message.recoverable,
        join_leave=message.join_leave,
        delta=message.delta,
        tf=_read_filter(message.tf) if message.HasField("tf") else None,
        flag=message.flag,
        type=message.type,
    )


def _read_filter(node: wire.FilterNode) -> FilterNode:
    """Recursion is bounded: the Protobuf reader refuses more than a hundred levels."""
    return FilterNode(
        op=node.op,
        key=node.key,
        cmp=node.cmp,
        val=node.val,
        vals=list(node.vals),
        nodes=[_read_filter(child) for child in node.nodes],
    )


def _read_history(message: wire.HistoryRequest) -> HistoryRequest:
    since = SincePosition(message.since.offset, message.since.epoch) if message.HasField("since") else None
    return HistoryRequest(message.channel, message.limit, since, message.reverse)


def _read_publish(message: wire.PublishRequest) -> PublishRequest:
    return PublishRequest(message.channel, _payload(message.data))


def _read_rpc(message: wire.RPCRequest) -> RPCRequest:
    return RPCRequest(_payload(message.data), message.method)


def _read_sub_refresh(message: wire.SubRefreshRequest) -> SubRefreshRequest:
    return SubRefreshRequest(message.channel, message.token)


_READERS: Final[dict[type[Message], Callable[[Any], Request]]] = {
    wire.ConnectRequest: _read_connect,
    wire.SubscribeRequest: _read_subscribe,
    wire.UnsubscribeRequest: lambda message: UnsubscribeRequest(message.channel),
    wire.PublishRequest: _read_publish,
    wire.PresenceRequest: lambda message: PresenceRequest(message.channel),
    wire.PresenceStatsRequest: lambda message: PresenceStatsRequest(message.channel),
    wire.HistoryRequest: _read_history,
    wire.PingRequest: lambda message: PingRequest(),
    wire.SendRequest: lambda message: SendRequest(_payload(message.data)),
    wire.RPCRequest: _read_rpc,
    wire.RefreshRequest: lambda message: RefreshRequest(message.token),
    wire.SubRefreshRequest: _read_sub_refresh,
}

# --- to the client -------------------------------------------------------------------------------------------------


def write_result(result: Result) -> Message:
    """The generated message for any result. Raises UnicodeEncodeError for text that is not Unicode."""
    match result:
        case PublishResult():
            return wire.PublishResult()
        case SubscribeResult():
            return _write_subscribed(result)
        case ConnectResult():
            return _write_connected(result)
        case HistoryResult():
            publications = _write_publications(result.publications)
            return wire.HistoryResult(publications=publications, epoch=result.epoch, offset=result.offset)
        case PresenceResult():
            return wire.PresenceResult(presence={client: _write_info(info) for client, info in result.presence.items()})
        case PresenceStatsResult():
            return wire.PresenceStatsResult(num_clients=result.num_clients, num_users=result.num_users)
        case RPCResult():
            return wire.RPCResult(data=bytes(result.data))
        case UnsubscribeResult():
            return wire.UnsubscribeResult()
        case PingResult():
            return wire.PingResult()
        case RefreshResult():
            return wire.RefreshResult(
                client=result.client, version=result.version, expires=result.expires, ttl=result.ttl
            )
        case SubRefreshResult():
            return wire.SubRefreshResult(expires=result.expires, ttl=result.ttl)
        case _:
            assert_never(result)


def write_push(push: Push) -> wire.Push:
    """Raises UnicodeEncodeError for text that is not Unicode."""
    match push:
        case PublicationPush():
            return wire.Push(channel=push.channel, pub=_write_publication(push.pub))
        case JoinPush():
            return wire.Push(channel=push.channel, join=wire.Join(info=_write_info(push.info)))
        case LeavePush():
            return wire.Push(channel=push.channel, leave=wire.Leave(info=_write_info(push.info)))
        case MessagePush():
            return wire.Push(message=wire.Message(data=bytes(push.data)))
        case SubscribePush():
            return wire.Push(channel=push.channel, subscribe=_write_subscribe(push))
        case UnsubscribePush():
            unsubscribe = wire.Unsubscribe(code=push.code, reason=push.reason)
            return wire.Push(channel=push.channel, unsubscribe=unsubscribe)
        case DisconnectPush():
            return wire.Push(disconnect=wire.Disconnect(code=push.code, reason=push.reason, reconnect=push.reconnect))
        case RefreshPush():
            return wire.Push(refresh=wire.Refresh(expires=push.expires, ttl=push.ttl))
        case _:
            assert_never(push)


def write_error(code: ErrorCode, detail: str) -> wire.Error:
    return wire.Error(code=code.code, message=error_message(code, detail), temporary=code.temporary)


def _write_subscribe(push: SubscribePush) -> wire.Subscribe:
    return wire.Subscribe(
        recoverable=push.recoverable,
        epoch=push.epoch,
        offset=push.offset,
        positioned=push.positioned,
        data=bytes(push.data),
    )


def _write_connected(result: ConnectResult) -> wire.ConnectResult:
    return wire.ConnectResult(
        client=result.client,
        version=result.version,
        expires=result.expires,
        ttl=result.ttl,
        data=bytes(result.data),
        subs={channel: _write_subscribed(sub) for channel, sub in result.subs.items()},
        ping=result.ping,
        pong=result.pong,
        session=result.session,
        node=result.node,
        time=result.time,
    )


def _write_subscribed(result: SubscribeResult) -> wire.SubscribeResult:
    return wire.SubscribeResult(
        expires=result.expires,
        ttl=result.ttl,
        recoverable=result.recoverable,
        epoch=result.epoch,
        publications=_write_publications(result.publications),
        recovered=result.recovered,
        offset=result.offset,
        positioned=result.positioned,
        data=bytes(result.data),
        was_recovering=result.was_recovering,
    )


def _write_publications(publications: Iterable[Publication]) -> list[wire.Publication]:
    return [_write_publication(publication) for publication in publications]


def _write_publication(publication: Publication) -> wire.Publication:
    return wire.Publication(
        data=bytes(publication.data),
        info=_write_info(publication.info) if publication.info is not None else None,
        offset=publication.offset,
        tags=publication.tags,
        epoch=publication.epoch,
    )


def _write_info(info: ClientInfo) -> wire.ClientInfo:
    return wire.ClientInfo(
        user=info.user, client=info.client, conn_info=bytes(info.conn_info), chan_info=bytes(info.chan_info)
    )
