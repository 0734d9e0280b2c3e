"""Between our messages and their JSON form. Field names are the same, so `msgspec` does nearly all of it."""

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
from beaconfire.model.requests import (
    Command,
    ConnectRequest,
    HistoryRequest,
    PublishRequest,
    Request,
    RPCRequest,
    SendRequest,
    SubscribeRequest,
)
from beaconfire.model.results import (
    ConnectResult,
    HistoryResult,
    PresenceResult,
    Result,
    RPCResult,
    SubscribeResult,
)
from beaconfire.protocols.centrifuge.fields import (
    I32_RANGE,
    I64_RANGE,
    PONG_COMMAND,
    REQUESTS,
    U32_RANGE,
    U64_RANGE,
    refuse_nameless,
)
from beaconfire.protocols.centrifuge.json_nulls import without_null_fields
from beaconfire.protocols.json_payload import embeddable
from beaconfire.protocols.port import ProtocolError

_WireCommand: Final = msgspec.defstruct(
    "_WireCommand",
    [
        ("id", Annotated[int, Meta(ge=0, lt=U32_RANGE.stop)], 0),
        *((name, request | None, None) for name, request in REQUESTS.items()),
    ],
    frozen=True,
    gc=False,  # it lives for a moment and has no way back to itself
)
_requests_of = attrgetter(*REQUESTS)

# Reads one value after the other; line breaks are to it white space like any other, so a client that prints its JSON
# prettily is understood too.
_decode_typed: Final[Callable[[bytes], list[Any]]] = msgspec.json.Decoder(_WireCommand).decode_lines

# --- from the client -----------------------------------------------------------------------------------------------


def decode_commands(text: bytes) -> list[Any]:
    """Commands as they stand in the text, for `read_command`. Raises what `msgspec` decoders raise.

    A field that is null counts as missing, except in payloads: many languages write what is not set as null.
    """
    try:
        return _decode_typed(text)
    except msgspec.ValidationError:
        if b"null" not in text:
            raise
        return _decode_typed(without_null_fields(text))


def read_command(wire: Any) -> Command:
    """Our command for one of those that `decode_commands` made. Payloads become copies.

    Raises ProtocolError if it has an id and asks for nothing known, or if a number is out of its field's range.
    """
    ref: int = wire.id
    if ref == 0:
        # Only `send` needs no id; a command that is neither is a pong, whatever else it holds (section 5, rule 2).
        return PONG_COMMAND if wire.send is None else Command(None, _send(wire.send))
    for request in _requests_of(wire):
        if request is not None:
            own = _OWN.get(type(request))
            if own is not None:
                request = own(request)
            return Command(None if type(request) is SendRequest else ref, request)
    refuse_nameless(ref)


def _own(data: Raw) -> Raw:
    """What was decoded is a view that would keep the whole frame in memory."""
    return data if data is NO_PAYLOAD else data.copy()


def _publish(request: PublishRequest) -> PublishRequest:
    return PublishRequest(request.channel, _own(request.data))


def _send(request: SendRequest) -> SendRequest:
    return SendRequest(_own(request.data))


def _rpc(request: RPCRequest) -> RPCRequest:
    return RPCRequest(_own(request.data), request.method)


def _connect(request: ConnectRequest) -> ConnectRequest:
    """Leaves out `user`, which is no field of this protocol."""
    return ConnectRequest(
        token=request.token,
        data=_own(request.data),
        subs={channel: _subscribe(sub) for channel, sub in request.subs.items()},
        name=request.name,
        version=request.version,
        headers=request.headers,
    )


def _subscribe(request: SubscribeRequest) -> SubscribeRequest:
    if request.offset or request.flag or request.type:  # seldom, and a connect request may hold thousands
        _check("subscribe.offset", request.offset, U64_RANGE)
        _check("subscribe.flag", request.flag, I64_RANGE)
        _check("subscribe.type", request.type, I32_RANGE)
    return request if request.data is NO_PAYLOAD else replace(request, data=request.data.copy())


def _history(request: HistoryRequest) -> HistoryRequest:
    _check("history.limit", request.limit, I32_RANGE)
    if request.since is not None:
        _check("history.since.offset", request.since.offset, U64_RANGE)
    return request


def _check(field: str, number: int, valid: range) -> None:
    """By hand because these messages are every protocol's, and the widths of numbers are this one's."""
    if number not in valid:
        raise ProtocolError(f"{field} is out of range; expected {valid.start} to {valid.stop - 1}")


_OWN: Final[dict[type[Request], Callable[[Any], Request]]] = {
    ConnectRequest: _connect,
    SubscribeRequest: _subscribe,
    PublishRequest: _publish,
    HistoryRequest: _history,
    SendRequest: _send,
    RPCRequest: _rpc,
}


# --- to the client -------------------------------------------------------------------------------------------------
# Messages are encoded as they are; what follows replaces only those that hold a payload unfit to stand in JSON.


def result_body(result: Result) -> object:
    match result:
        case SubscribeResult():
            return _subscribed(result)
        case HistoryResult():
            return replace(result, publications=_publications(result.publications))
        case PresenceResult():
            return {"presence": {client: _info(info) for client, info in result.presence.items()}}
        case RPCResult():
            return RPCResult(embeddable(result.data))
        case ConnectResult():
            subs = {channel: _subscribed(sub) for channel, sub in result.subs.items()}
            return replace(result, data=embeddable(result.data), subs=subs)
        case _:
            return result


def _subscribed(result: SubscribeResult) -> SubscribeResult:
    return replace(result, data=embeddable(result.data), publications=_publications(result.publications))


def push_body(push: Push) -> object:
    match push:
        case PublicationPush():
            return _publication(push.pub)
        case JoinPush() | LeavePush():
            return {"info": _info(push.info)}
        case MessagePush():
            return _without_zeros(data=embeddable(push.data))
        case SubscribePush():
            return _without_zeros(
                recoverable=push.recoverable,
                epoch=push.epoch,
                offset=push.offset,
                positioned=push.positioned,
                data=embeddable(push.data),
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
    data = embeddable(publication.data)
    info = publication.info and _info(publication.info)
    tags = publication.tags or None
    if data is publication.data and info is publication.info and tags is publication.tags:
        return publication
    return replace(publication, data=data, info=info, tags=tags)


def _info(info: ClientInfo) -> ClientInfo:
    conn_info, chan_info = embeddable(info.conn_info), embeddable(info.chan_info)
    if conn_info is info.conn_info and chan_info is info.chan_info:
        return info
    return ClientInfo(info.user, info.client, conn_info, chan_info)
