"""What the server says: results, errors and pushes as JSON objects.

Payloads are embedded as the bytes their publisher sent. They are checked first, because a JSON document that breaks
in the middle would make the whole message unreadable. Encoding happens once per fan-out, not once per client.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from beaconfire.base.errors import CommandError
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
from beaconfire.model.results import (
    ConnectResult,
    HistoryResult,
    PingResult,
    PresenceResult,
    PublishResult,
    RefreshResult,
    Result,
    SubRefreshResult,
    SubscribeResult,
    UnsubscribeResult,
)
from beaconfire.protocols.json_payload import embeddable
from beaconfire.protocols.plain.requests import Ref

_NULL = Raw(b"null")
_Id: TypeAlias = Raw | UnsetType


class _Outgoing(Struct, tag_field="type", omit_defaults=True):
    """Fields whose zero value means something are UNSET where they are absent."""


class _Member(Struct, omit_defaults=True):
    user: str | UnsetType = UNSET
    client: str | UnsetType = UNSET
    info: Raw = NO_PAYLOAD
    room_info: Raw = NO_PAYLOAD


class _Message(_Outgoing, tag="message"):
    room: str
    data: Raw
    user: str | UnsetType = UNSET
    client: str | UnsetType = UNSET
    info: Raw = NO_PAYLOAD
    room_info: Raw = NO_PAYLOAD
    offset: int = 0
    epoch: str = ""
    tags: dict[str, str] | None = None


class _Joined(_Outgoing, tag="joined"):
    id: _Id = UNSET
    room: str = ""
    offset: int | UnsetType = UNSET
    epoch: str = ""
    recovered: bool | UnsetType = UNSET
    messages: list[_Message] | UnsetType = UNSET
    data: Raw = NO_PAYLOAD
    expires: bool = False
    ttl: int = 0


class _Welcome(_Outgoing, tag="welcome"):
    id: _Id
    client: str
    version: str
    expires: bool = False
    ttl: int = 0
    data: Raw = NO_PAYLOAD
    rooms: dict[str, _Joined] = {}


class _Left(_Outgoing, tag="left"):
    id: _Id = UNSET
    room: str = ""
    code: int | UnsetType = UNSET
    reason: str = ""


class _Ack(_Outgoing, tag="ack"):
    id: _Id = UNSET
    offset: int = 0
    epoch: str = ""


class _Presence(_Outgoing, tag="presence"):
    id: _Id
    room: str
    clients: dict[str, _Member]


class _History(_Outgoing, tag="history"):
    id: _Id
    room: str
    messages: list[_Message]
    offset: int
    epoch: str


class _Refreshed(_Outgoing, tag="refreshed"):
    id: _Id = UNSET
    room: str = ""
    expires: bool = False
    ttl: int = 0


class _Pong(_Outgoing, tag="pong"):
    id: _Id = UNSET


class _Error(_Outgoing, tag="error"):
    id: _Id = UNSET
    room: str = ""
    code: int = 0
    message: str = ""
    temporary: bool = False
    detail: str = ""


class _Come(_Outgoing, tag="join"):
    room: str
    user: str
    client: str
    info: Raw = NO_PAYLOAD
    room_info: Raw = NO_PAYLOAD


class _Go(_Come, tag="leave"):
    pass


class _SelfJoin(_Outgoing, tag="join"):
    room: str
    self: bool | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    epoch: str = ""
    data: Raw = NO_PAYLOAD


class _Direct(_Outgoing, tag="direct"):
    data: Raw


class _Disconnect(_Outgoing, tag="disconnect"):
    code: int
    reason: str
    reconnect: bool


_encode = msgspec.json.Encoder().encode


def write_result(ref: Ref, result: Result) -> bytes:
    """The answer to the command with this ref. Raises PayloadError if a payload in it is not JSON."""
    return _encode(_answer(ref.id or UNSET, ref.room, result))


def write_error(ref: Ref, error: CommandError, detail: str) -> bytes:
    code = error.code
    return _encode(_Error(ref.id or UNSET, ref.room, code.code, code.message, code.temporary, detail))


def write_push(push: Push) -> bytes:
    """A message nobody asked for. Raises PayloadError if a payload in it is not JSON."""
    if type(push) is PublicationPush:  # first and apart: nearly all pushes are
        return _encode(_message(push.channel, push.pub))
    return _encode(_notice(push))


def _answer(id_: _Id, room: str, result: Result) -> _Outgoing:
    match result:
        case PublishResult():
            return _Ack(id_, result.offset, result.epoch if result.offset else "")
        case PingResult():
            return _Pong(id_)
        case SubscribeResult():
            return _joined(id_, room, result)
        case UnsubscribeResult():
            return _Left(id_, room)
        case ConnectResult():
            rooms = {name: _joined(UNSET, name, joined) for name, joined in result.subs.items()}
            about = (result.client, result.version, result.expires, result.ttl)
            return _Welcome(id_, *about, _checked(result.data), rooms)
        case PresenceResult():
            return _Presence(id_, room, {client: _member(info) for client, info in result.presence.items()})
        case HistoryResult():
            messages = _messages(room, result.publications)
            return _History(id_, room, messages, result.offset, result.epoch)
        case RefreshResult() | SubRefreshResult():
            return _Refreshed(id_, room, result.expires, result.ttl)
        case _:
            raise AssertionError(f"no message of the plain protocol is answered with {type(result).__name__}")


def _joined(id_: _Id, room: str, result: SubscribeResult) -> _Joined:
    """The position is where the client stands after `messages`, so that it has one thing to remember."""
    joined = _Joined(id_, room, data=_checked(result.data), expires=result.expires, ttl=result.ttl)
    if result.epoch:
        last = result.publications[-1].offset if result.publications else 0
        joined.offset, joined.epoch = max(result.offset, last), result.epoch
    if result.was_recovering:
        joined.recovered = result.recovered
    if result.was_recovering or result.publications:
        joined.messages = _messages(room, result.publications)
    return joined


def _notice(push: Push) -> _Outgoing:
    match push:
        case JoinPush(channel, info):
            return _Come(channel, info.user, info.client, _checked(info.conn_info), _checked(info.chan_info))
        case LeavePush(channel, info):
            return _Go(channel, info.user, info.client, _checked(info.conn_info), _checked(info.chan_info))
        case UnsubscribePush(channel, code, reason):
            return _Left(UNSET, channel, code, reason)
        case SubscribePush():
            offset = push.offset if push.epoch else UNSET
            return _SelfJoin(push.channel, True, offset, push.epoch, _checked(push.data))
        case MessagePush(data):
            return _Direct(_checked(data, _NULL))
        case RefreshPush(expires, ttl):
            return _Refreshed(expires=expires, ttl=ttl)
        case DisconnectPush(code, reason, reconnect):
            return _Disconnect(code, reason, reconnect)
        case _:
            raise AssertionError(f"{type(push).__name__} is no push this protocol knows")


def _messages(room: str, publications: Iterable[Publication]) -> list[_Message]:
    return [_message(room, publication) for publication in publications]


def _message(room: str, publication: Publication) -> _Message:
    data = _checked(publication.data, _NULL)
    info = publication.info
    if info is None:
        return _Message(room, data, offset=publication.offset, epoch=publication.epoch, tags=publication.tags)
    return _Message(
        room,
        data,
        info.user,
        info.client,
        _checked(info.conn_info),
        _checked(info.chan_info),
        publication.offset,
        publication.epoch,
        publication.tags,
    )


def _member(info: ClientInfo) -> _Member:
    return _Member(info.user, info.client, _checked(info.conn_info), _checked(info.chan_info))


def _checked(payload: Raw, empty: Raw = NO_PAYLOAD) -> Raw:
    """The payload, known to be JSON. `empty` stands for one without bytes: left out, unless the field must be there."""
    return embeddable(payload) if payload else empty
