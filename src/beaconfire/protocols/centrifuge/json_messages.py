"""Converts between the messages of `beaconfire.model` and JSON. The field names are the same, so `msgspec` does nearly
all of the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Annotated, Any, Final, assert_never

import msgspec
from msgspec import Meta, Raw
from msgspec.structs import replace

from beaconfire.model.publication import NO_PAYLOAD, ClientInfo, Publication
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
from beaconfire.protocols.centrifuge.fields import (
    I32_RANGE,
    I64_RANGE,
    PONG_COMMAND,
    REQUESTS,
    U32_RANGE,
    U64_RANGE,
    raise_unknown_request,
)
from beaconfire.protocols.centrifuge.json_nulls import without_null_fields
from beaconfire.protocols.centrifuge.requests import (
    Command,
    ConnectRequest,
    HistoryRequest,
    PublishRequest,
    Request,
    RPCRequest,
    SendRequest,
    SubscribeRequest,
)
from beaconfire.protocols.centrifuge.results import (
    ConnectResult,
    HistoryResult,
    PresenceResult,
    Result,
    RPCResult,
    SubscribeResult,
)
from beaconfire.protocols.json_payload import check_json
from beaconfire.protocols.port import ProtocolError

_WireCommand: Final = msgspec.defstruct(
    "_WireCommand",
    [
        ("id", Annotated[int, Meta(ge=0, lt=U32_RANGE.stop)], 0),
        *((name, request | None, None) for name, request in REQUESTS.items()),
    ],
    frozen=True,
    gc=False,  # The object lives only during decoding and cannot be part of a reference cycle.
)
_requests_of = attrgetter(*REQUESTS)

# Decodes one value after the other. Line breaks count as white space, so a client may also indent its JSON.
_decode_typed: Final[Callable[[bytes], list[Any]]] = msgspec.json.Decoder(_WireCommand).decode_lines

# --- from the client -----------------------------------------------------------------------------------------------


def decode_commands(text: bytes) -> list[Any]:
    """Decodes the commands of a text, for `read_command`. Raises the exceptions of `msgspec` decoders.

    A field that is null counts as missing, because many languages write null for a field that is not set. In payloads
    null is a value.
    """
    try:
        return _decode_typed(text)
    except msgspec.ValidationError:
        if b"null" not in text:
            raise
        return _decode_typed(without_null_fields(text))


def read_command(wire: Any) -> Command:
    """Converts one result of `decode_commands` to a command. Payloads are copied.

    Raises ProtocolError for an id without a known request, and for a number outside of the range of its field.
    """
    ref: int = wire.id
    if ref == 0:
        # Only `send` needs no id. Any other command without an id is a pong, whatever it contains (section 5, rule 2).
        return PONG_COMMAND if wire.send is None else Command(None, _copy_send(wire.send))
    for request in _requests_of(wire):
        if request is not None:
            copied = _COPIED.get(type(request))
            if copied is not None:
                request = copied(request)
            return Command(None if type(request) is SendRequest else ref, request)
    raise_unknown_request(ref)


def _copy(data: Raw) -> Raw:
    """Copies a decoded payload, because it is a view that keeps the whole frame in memory."""
    return data if data is NO_PAYLOAD else data.copy()


def _copy_publish(request: PublishRequest) -> PublishRequest:
    return PublishRequest(request.channel, _copy(request.data))


def _copy_send(request: SendRequest) -> SendRequest:
    return SendRequest(_copy(request.data))


def _copy_rpc(request: RPCRequest) -> RPCRequest:
    return RPCRequest(_copy(request.data), request.method)


def _check_connect(request: ConnectRequest) -> ConnectRequest:
    """Drops `user`, which is not a field of this protocol."""
    return ConnectRequest(
        token=request.token,
        data=_copy(request.data),
        subs={channel: _check_subscribe(sub) for channel, sub in request.subs.items()},
        name=request.name,
        version=request.version,
        headers=request.headers,
        ticket=request.ticket,
        want_tickets=request.want_tickets,
    )


def _check_subscribe(request: SubscribeRequest) -> SubscribeRequest:
    if request.offset or request.flag or request.type:  # Rarely set, and a connect request may have thousands of subs.
        _check_range("subscribe.offset", request.offset, U64_RANGE)
        _check_range("subscribe.flag", request.flag, I64_RANGE)
        _check_range("subscribe.type", request.type, I32_RANGE)
    return request if request.data is NO_PAYLOAD else replace(request, data=request.data.copy())


def _check_history(request: HistoryRequest) -> HistoryRequest:
    _check_range("history.limit", request.limit, I32_RANGE)
    if request.since is not None:
        _check_range("history.since.offset", request.since.offset, U64_RANGE)
    return request


def _check_range(field: str, number: int, valid: range) -> None:
    """Checks the range of an integer. Not in the types, because all protocols share the messages, and the ranges are
    those of this protocol."""
    if number not in valid:
        raise ProtocolError(f"{field} is out of range; expected {valid.start} to {valid.stop - 1}")


_COPIED: Final[dict[type[Request], Callable[[Any], Request]]] = {
    ConnectRequest: _check_connect,
    SubscribeRequest: _check_subscribe,
    PublishRequest: _copy_publish,
    HistoryRequest: _check_history,
    SendRequest: _copy_send,
    RPCRequest: _copy_rpc,
}


# --- to the client -------------------------------------------------------------------------------------------------
# `msgspec` encodes the messages directly. These functions check all payloads, and replace a message only if one of its
# payloads must change.


def result_body(result: Result) -> object:
    """The value of the result's field in a reply. Raises PayloadError if a payload is not JSON."""
    match result:
        case SubscribeResult():
            return _subscribe_result(result)
        case HistoryResult():
            return replace(result, publications=_publications(result.publications))
        case PresenceResult():
            return {"presence": {client: _info(info) for client, info in result.presence.items()}}
        case RPCResult():
            return RPCResult(check_json(result.data))
        case ConnectResult():
            subs = {channel: _subscribe_result(sub) for channel, sub in result.subs.items()}
            return replace(result, data=check_json(result.data), subs=subs)
        case _:
            return result


def _subscribe_result(result: SubscribeResult) -> SubscribeResult:
    return replace(result, data=check_json(result.data), publications=_publications(result.publications))


def push_body(push: Push) -> object:
    """The value of the push's field, without the channel. Raises PayloadError if a payload is not JSON."""
    match push:
        case PublicationPush():
            return _publication(push.pub)
        case JoinPush() | LeavePush():
            return {"info": _info(push.info)}
        case MessagePush():
            return _without_zeros(data=check_json(push.data))
        case SubscribePush():
            return _without_zeros(
                recoverable=push.recoverable,
                epoch=push.epoch,
                offset=push.offset,
                positioned=push.positioned,
                data=check_json(push.data),
            )
        case UnsubscribePush():
            return _without_zeros(code=push.code, reason=push.reason)
        case DisconnectPush():
            return _without_zeros(code=push.code, reason=push.reason, reconnect=push.reconnect)
        case RefreshPush():
            return _without_zeros(expires=push.expires, ttl=push.ttl)
        case _:
            assert_never(push)


def _without_zeros(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value}


def _publications(publications: Sequence[Publication]) -> list[Publication]:
    return [_publication(publication) for publication in publications]


def _publication(publication: Publication) -> Publication:
    data = check_json(publication.data)
    info = publication.info and _info(publication.info)
    tags = publication.tags or None
    if data is publication.data and info is publication.info and tags is publication.tags:
        return publication
    return replace(publication, data=data, info=info, tags=tags)


def _info(info: ClientInfo) -> ClientInfo:
    conn_info, chan_info = check_json(info.conn_info), check_json(info.chan_info)
    if conn_info is info.conn_info and chan_info is info.chan_info:
        return info
    return ClientInfo(info.user, info.client, conn_info, chan_info)
