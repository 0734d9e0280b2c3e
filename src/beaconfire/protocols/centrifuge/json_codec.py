"""The native protocol in JSON: one object per message, line breaks between messages, payloads embedded verbatim.

Sections 2.2 and 3 of the protocol. Zero values are left out except where `beaconfire.messages` has no default, an
empty result is still there as `{}`, and an empty reply is a ping.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Annotated, Any, Final, assert_never

import msgspec
from msgspec import Meta, Raw
from msgspec.structs import replace

from beaconfire.errors import CommandError, PayloadError
from beaconfire.messages import (
    NO_PAYLOAD,
    ClientInfo,
    Command,
    ConnectRequest,
    ConnectResult,
    DisconnectPush,
    HistoryRequest,
    HistoryResult,
    JoinPush,
    LeavePush,
    MessagePush,
    PresenceResult,
    Publication,
    PublicationPush,
    PublishRequest,
    PublishResult,
    Push,
    RefreshPush,
    Request,
    Result,
    RPCRequest,
    RPCResult,
    SendRequest,
    SubscribePush,
    SubscribeRequest,
    SubscribeResult,
    UnsubscribePush,
)
from beaconfire.protocols.base import Payload, ProtocolError
from beaconfire.protocols.centrifuge.fields import (
    I32_RANGE,
    I64_RANGE,
    PONG_COMMAND,
    PUSHES,
    REQUESTS,
    RESULTS,
    U32_RANGE,
    U64_RANGE,
    error_message,
    refuse_nameless,
)
from beaconfire.protocols.centrifuge.json_payload import NotJSONError, embeddable, read

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
_decode_commands: Final[Callable[[bytes], list[Any]]] = msgspec.json.Decoder(_WireCommand).decode_lines
_encode: Final = msgspec.json.Encoder().encode

# In valid JSON a raw line break is white space. One inside a payload would cut the message in two: LF separates
# messages on every transport, and for an event stream CR does as well.
_LINE_BREAKS: Final = bytes.maketrans(b"\r\n", b"  ")


class JsonCodec:
    """`protocols.base.Codec` of `centrifuge-json`. Stateless. `ref` is the command's id, an int above 0."""

    name: Final = "centrifuge-json"
    separator: Final = b"\n"
    app_pings: Final = True

    def decode(self, data: bytes, binary: bool) -> Sequence[Command]:
        """Payloads are copies and own their bytes. The kind of frame does not matter.

        Raises ProtocolError for anything but one or more JSON objects, for a number outside of its field's range,
        and for a command with an id that asks for nothing known. Unknown fields are skipped.
        """
        try:
            commands = read(_decode_commands, data)
        except NotJSONError as error:
            raise ProtocolError(f"the frame is not a series of JSON commands: {error}") from None
        if not commands:
            raise ProtocolError("an empty frame")
        if len(commands) == 1:  # nearly always
            return (_command(commands[0]),)
        return [_command(command) for command in commands]

    def encode_reply(self, ref: object, result: Result) -> Payload:
        """Raises PayloadError if a payload in the result is not JSON."""
        if type(result) is PublishResult:  # the most frequent one, and always empty in this protocol
            assert isinstance(ref, int)
            return Payload(b'{"id":%d,"publish":{}}' % ref)
        return _message({"id": ref, RESULTS[type(result)]: _result(result)})

    def encode_error(self, ref: object, error: CommandError, detail: str) -> Payload:
        """`detail`, if any, is appended to the message after a colon: the protocol has no field for it."""
        body: dict[str, object] = {"code": error.code.code, "message": error_message(error.code, detail)}
        if error.code.temporary:
            body["temporary"] = True
        return _message({"id": ref, "error": body})

    def encode_push(self, push: Push) -> Payload:
        """Raises PayloadError if a payload in the push is not JSON."""
        body: dict[str, object] = {PUSHES[type(push)]: _push(push)}
        return _message({"push": body if isinstance(push, _NO_CHANNEL) else {"channel": push.channel, **body}})

    def encode_ping(self) -> Payload:
        return _PING


_PING: Final = Payload(b"{}")
_NO_CHANNEL: Final = (MessagePush, DisconnectPush, RefreshPush)


def _message(message: dict[str, object]) -> Payload:
    try:
        data = _encode(message)
    except UnicodeEncodeError as error:
        raise PayloadError(f"a text is not Unicode: {error.reason}") from None
    if b"\n" in data or b"\r" in data:
        data = data.translate(_LINE_BREAKS)
    return Payload(data)


# --- from the client -----------------------------------------------------------------------------------------------


def _command(wire: Any) -> Command:
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
    data = request.data
    return PublishRequest(request.channel, data if data is NO_PAYLOAD else data.copy())


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


def _result(result: Result) -> object:
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


def _push(push: Push) -> object:
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
