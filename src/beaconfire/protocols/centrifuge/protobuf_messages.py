"""Converts between the messages of `beaconfire.model` and the generated Protobuf classes. Only this module and the
codec use the generated classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, assert_never

from google.protobuf.message import Message

from beaconfire.base.errors import CommandError
from beaconfire.model.position import SincePosition
from beaconfire.model.publication import NO_PAYLOAD, ClientInfo, Publication, to_payload
from beaconfire.model.pushes import (
    DisconnectPush,
    JoinPush,
    LeavePush,
    MessagePush,
    PublicationPush,
    Push,
    RefreshPush,
    SubscribePush,
    UnsubscribePush,
)
from beaconfire.model.requests import Conflate, FilterNode
from beaconfire.protocols.centrifuge import schema_pb2 as wire
from beaconfire.protocols.centrifuge.fields import RESULTS, error_message
from beaconfire.protocols.centrifuge.requests import (
    ConnectRequest,
    HistoryRequest,
    PingRequest,
    PresenceRequest,
    PresenceStatsRequest,
    PublishRequest,
    RefreshRequest,
    Request,
    RPCRequest,
    SendRequest,
    SubRefreshRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from beaconfire.protocols.centrifuge.results import (
    ConnectResult,
    HistoryResult,
    PingResult,
    PresenceResult,
    PresenceStatsResult,
    PublishResult,
    RefreshResult,
    Result,
    RPCResult,
    SubRefreshResult,
    SubscribeResult,
    UnsubscribeResult,
)

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

# --- from the client -----------------------------------------------------------------------------------------------


def read_request(message: Message) -> Request:
    """Converts a request of a Protobuf `Command`."""
    return _READERS[type(message)](message)


def _read_connect(message: wire.ConnectRequest) -> ConnectRequest:
    return ConnectRequest(
        token=message.token,
        data=to_payload(message.data),
        subs={channel: _read_subscribe(sub) for channel, sub in message.subs.items()},
        name=message.name,
        version=message.version,
        headers=dict(message.headers),
        ticket=message.ticket,
        want_tickets=message.want_tickets,
    )


def _read_subscribe(message: wire.SubscribeRequest) -> SubscribeRequest:
    return SubscribeRequest(
        channel=message.channel,
        token=message.token,
        recover=message.recover,
        epoch=message.epoch,
        offset=message.offset,
        data=to_payload(message.data),
        positioned=message.positioned,
        recoverable=message.recoverable,
        join_leave=message.join_leave,
        delta=message.delta,
        tf=_read_filter(message.tf) if message.HasField("tf") else None,
        conflate=Conflate(message.conflate.max_rate) if message.HasField("conflate") else None,
        flag=message.flag,
        type=message.type,
        ticket=message.ticket,
    )


def _read_filter(node: wire.FilterNode) -> FilterNode:
    """The depth of the recursion is limited, because the Protobuf decoder rejects more than a hundred levels."""
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
    return PublishRequest(message.channel, to_payload(message.data))


def _read_rpc(message: wire.RPCRequest) -> RPCRequest:
    return RPCRequest(to_payload(message.data), message.method)


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
    wire.SendRequest: lambda message: SendRequest(to_payload(message.data)),
    wire.RPCRequest: _read_rpc,
    wire.RefreshRequest: lambda message: RefreshRequest(message.token),
    wire.SubRefreshRequest: _read_sub_refresh,
}

# --- to the client -------------------------------------------------------------------------------------------------
# These functions fill messages in place, in a third of the time of nested constructors with keywords. Setting any
# field, even to zero, makes its message present. All functions raise UnicodeEncodeError for a string that is not valid
# Unicode.


def write_result(reply: wire.Reply, result: Result) -> None:
    """Sets the field of the result. The field is present even for an empty result, because presence means success."""
    getattr(reply, RESULTS[type(result)]).SetInParent()
    match result:
        case PublishResult() | UnsubscribeResult() | PingResult():
            pass  # A publish result of this protocol has no position.
        case SubscribeResult():
            _write_subscribe_result(reply.subscribe, result)
        case ConnectResult():
            _write_connect_result(reply.connect, result)
        case HistoryResult():
            _write_publications(reply.history.publications, result.publications)
            reply.history.epoch = result.epoch
            reply.history.offset = result.offset
        case PresenceResult():
            for client, info in result.presence.items():
                _write_info(reply.presence.presence[client], info)
        case PresenceStatsResult():
            reply.presence_stats.num_clients = result.num_clients
            reply.presence_stats.num_users = result.num_users
        case RPCResult():
            reply.rpc.data = bytes(result.data)
        case RefreshResult():
            reply.refresh.client = result.client
            reply.refresh.version = result.version
            reply.refresh.expires = result.expires
            reply.refresh.ttl = result.ttl
            reply.refresh.ticket = result.ticket
        case SubRefreshResult():
            reply.sub_refresh.expires = result.expires
            reply.sub_refresh.ttl = result.ttl
            reply.sub_refresh.ticket = result.ticket
        case _:
            assert_never(result)


def write_error(reply: wire.Reply, error: CommandError, detail: str) -> None:
    """Sets the error of the reply."""
    reply.error.code = error.code.code
    reply.error.message = error_message(error.code, detail)
    reply.error.temporary = error.code.temporary


def write_push(reply: wire.Reply, push: Push) -> None:
    """Sets the field of the push, which is present even if the push is empty."""
    out = reply.push
    match push:
        case PublicationPush():
            out.channel = push.channel
            _write_publication(out.pub, push.pub)
        case JoinPush():
            out.channel = push.channel
            _write_info(out.join.info, push.info)
        case LeavePush():
            out.channel = push.channel
            _write_info(out.leave.info, push.info)
        case SubscribePush():
            out.channel = push.channel
            _write_subscribe_push(out.subscribe, push)
        case UnsubscribePush():
            out.channel = push.channel
            out.unsubscribe.code = push.code
            out.unsubscribe.reason = push.reason
        case MessagePush():
            out.message.data = bytes(push.data)
        case DisconnectPush():
            out.disconnect.code = push.code
            out.disconnect.reason = push.reason
            out.disconnect.reconnect = push.reconnect
        case RefreshPush():
            out.refresh.expires = push.expires
            out.refresh.ttl = push.ttl
        case _:
            assert_never(push)


def _write_subscribe_push(out: wire.Subscribe, push: SubscribePush) -> None:
    out.recoverable = push.recoverable
    out.epoch = push.epoch
    out.offset = push.offset
    out.positioned = push.positioned
    out.data = bytes(push.data)


def _write_connect_result(out: wire.ConnectResult, result: ConnectResult) -> None:
    out.client = result.client
    out.version = result.version
    out.expires = result.expires
    out.ttl = result.ttl
    out.data = bytes(result.data)
    for channel, sub in result.subs.items():
        _write_subscribe_result(out.subs[channel], sub)
    out.ping = result.ping
    out.pong = result.pong
    out.session = result.session
    out.node = result.node
    out.time = result.time
    out.ticket = result.ticket


def _write_subscribe_result(out: wire.SubscribeResult, result: SubscribeResult) -> None:
    out.expires = result.expires
    out.ttl = result.ttl
    out.recoverable = result.recoverable
    out.epoch = result.epoch
    _write_publications(out.publications, result.publications)
    out.recovered = result.recovered
    out.offset = result.offset
    out.positioned = result.positioned
    out.data = bytes(result.data)
    out.was_recovering = result.was_recovering
    out.delta = result.delta
    out.ticket = result.ticket


def _write_publications(
    out: RepeatedCompositeFieldContainer[wire.Publication], publications: Iterable[Publication]
) -> None:
    for publication in publications:
        _write_publication(out.add(), publication)


def _write_publication(out: wire.Publication, publication: Publication) -> None:
    out.data = bytes(publication.data)
    if publication.info is not None:
        _write_info(out.info, publication.info)
    if publication.offset:
        out.offset = publication.offset
    if publication.tags:
        out.tags.update(publication.tags)
    if publication.epoch:
        out.epoch = publication.epoch
    if publication.delta:
        out.delta = True
    if publication.conflated:
        out.conflated = publication.conflated


def _write_info(out: wire.ClientInfo, info: ClientInfo) -> None:
    out.user = info.user
    out.client = info.client
    if info.conn_info is not NO_PAYLOAD:
        out.conn_info = bytes(info.conn_info)
    if info.chan_info is not NO_PAYLOAD:
        out.chan_info = bytes(info.chan_info)
