"""Messages of the server: encodes results, errors and pushes as JSON objects.

Payloads are embedded as the bytes of their publisher. They are checked first, because an invalid payload would make the
whole message unreadable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from beaconfire.base.errors import CommandError
from beaconfire.model.position import StreamPosition
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
from beaconfire.model.results import ConnectionStart, SubscriptionStart
from beaconfire.protocols.json_payload import check_json
from beaconfire.protocols.plain.requests import Ref

_NULL = Raw(b"null")
_Id: TypeAlias = Raw | UnsetType


class _ServerMessage(Struct, tag_field="type", omit_defaults=True):
    """Base of all messages. A field whose zero value has a meaning is UNSET if it is absent."""


class _Member(Struct, omit_defaults=True):
    user: str | UnsetType = UNSET
    client: str | UnsetType = UNSET
    info: Raw = NO_PAYLOAD
    room_info: Raw = NO_PAYLOAD


class _Message(_ServerMessage, tag="message"):
    room: str
    data: Raw
    user: str | UnsetType = UNSET
    client: str | UnsetType = UNSET
    info: Raw = NO_PAYLOAD
    room_info: Raw = NO_PAYLOAD
    offset: int = 0
    epoch: str = ""
    tags: dict[str, str] | None = None


class _Joined(_ServerMessage, tag="joined"):
    id: _Id = UNSET
    room: str = ""
    offset: int | UnsetType = UNSET
    epoch: str = ""
    recovered: bool | UnsetType = UNSET
    messages: list[_Message] | UnsetType = UNSET
    data: Raw = NO_PAYLOAD
    expires: bool = False
    ttl: int = 0


class _Welcome(_ServerMessage, tag="welcome"):
    id: _Id
    client: str
    version: str
    expires: bool = False
    ttl: int = 0
    data: Raw = NO_PAYLOAD
    rooms: dict[str, _Joined] = {}


class _Left(_ServerMessage, tag="left"):
    id: _Id = UNSET
    room: str = ""
    code: int | UnsetType = UNSET
    reason: str = ""


class _Ack(_ServerMessage, tag="ack"):
    id: _Id = UNSET
    offset: int = 0
    epoch: str = ""
    durability: str = ""


class _Presence(_ServerMessage, tag="presence"):
    id: _Id
    room: str
    clients: dict[str, _Member]


class _History(_ServerMessage, tag="history"):
    id: _Id
    room: str
    messages: list[_Message]
    offset: int
    epoch: str


class _Refreshed(_ServerMessage, tag="refreshed"):
    id: _Id = UNSET
    room: str = ""
    expires: bool = False
    ttl: int = 0


class _Pong(_ServerMessage, tag="pong"):
    id: _Id = UNSET


class _Error(_ServerMessage, tag="error"):
    id: _Id = UNSET
    room: str = ""
    code: int = 0
    message: str = ""
    temporary: bool = False
    detail: str = ""


class _MemberJoin(_ServerMessage, tag="join"):
    room: str
    user: str
    client: str
    info: Raw = NO_PAYLOAD
    room_info: Raw = NO_PAYLOAD


class _MemberLeave(_MemberJoin, tag="leave"):
    pass


class _ServerSideJoin(_ServerMessage, tag="join"):
    room: str
    self: bool | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    epoch: str = ""
    data: Raw = NO_PAYLOAD


class _Direct(_ServerMessage, tag="direct"):
    data: Raw


class _Disconnect(_ServerMessage, tag="disconnect"):
    code: int
    reason: str
    reconnect: bool


_encode = msgspec.json.Encoder().encode


def welcome(ref: Ref, version: str, start: ConnectionStart) -> bytes:
    """The reply to a handshake. Raises PayloadError if a payload is not JSON, like all functions here."""
    rooms = {room.channel: _joined(UNSET, room.channel, room) for room in start.subscriptions}
    about = (start.client, version, start.ttl_s > 0, start.ttl_s)
    return _encode(_Welcome(ref.id or UNSET, *about, _checked(start.data), rooms))


def joined(ref: Ref, start: SubscriptionStart) -> bytes:
    """The reply to a join."""
    return _encode(_joined(ref.id or UNSET, ref.room, start))


def left(ref: Ref) -> bytes:
    """The reply to a leave."""
    return _encode(_Left(ref.id or UNSET, ref.room))


def ack(ref: Ref, position: StreamPosition, durability: str) -> bytes:
    """The reply to a message. `durability` is what the publication survives, if it is stored."""
    if not position.offset:
        return _encode(_Ack(ref.id or UNSET))
    return _encode(_Ack(ref.id or UNSET, position.offset, position.epoch, durability))


def presence(ref: Ref, members: Mapping[str, ClientInfo]) -> bytes:
    """The reply to a presence request."""
    clients = {client: _member(info) for client, info in members.items()}
    return _encode(_Presence(ref.id or UNSET, ref.room, clients))


def history(ref: Ref, publications: Iterable[Publication], top: StreamPosition) -> bytes:
    """The reply to a history request."""
    return _encode(_History(ref.id or UNSET, ref.room, _messages(ref.room, publications), top.offset, top.epoch))


def refreshed(ref: Ref, ttl_s: int) -> bytes:
    """The reply to a refresh."""
    return _encode(_Refreshed(ref.id or UNSET, ref.room, ttl_s > 0, ttl_s))


def pong(ref: Ref) -> bytes:
    """The reply to a ping."""
    return _encode(_Pong(ref.id or UNSET))


def encode_error(ref: Ref, error: CommandError, detail: str) -> bytes:
    """The error reply to the command with this `ref`."""
    code = error.code
    return _encode(_Error(ref.id or UNSET, ref.room, code.code, code.message, code.temporary, detail))


def encode_push(push: Push) -> bytes:
    """The message for a push. Raises PayloadError if a payload is not JSON."""
    if type(push) is PublicationPush:  # First, because nearly all pushes are publications.
        return _encode(_message(push.channel, push.pub))
    return _encode(_push(push))


def _joined(id_: _Id, room: str, start: SubscriptionStart) -> _Joined:
    """The position in the message is that after `messages`, so the client needs to store only this position."""
    joined = _Joined(id_, room, data=_checked(start.data), expires=start.ttl_s > 0, ttl=start.ttl_s)
    if start.position is not None:
        last = start.publications[-1].offset if start.publications else 0
        joined.offset, joined.epoch = max(start.position.offset, last), start.position.epoch
    if start.was_recovering:
        joined.recovered = start.recovered
    if start.was_recovering or start.publications:
        joined.messages = _messages(room, start.publications)
    return joined


def _push(push: Push) -> _ServerMessage:
    match push:
        case JoinPush(channel, info):
            return _MemberJoin(channel, info.user, info.client, _checked(info.conn_info), _checked(info.chan_info))
        case LeavePush(channel, info):
            return _MemberLeave(channel, info.user, info.client, _checked(info.conn_info), _checked(info.chan_info))
        case UnsubscribePush(channel, code, reason):
            return _Left(UNSET, channel, code, reason)
        case SubscribePush():
            offset = push.offset if push.epoch else UNSET
            return _ServerSideJoin(push.channel, True, offset, push.epoch, _checked(push.data))
        case MessagePush(data):
            return _Direct(_checked(data, _NULL))
        case RefreshPush(expires, ttl):
            return _Refreshed(expires=expires, ttl=ttl)
        case DisconnectPush(code, reason, reconnect):
            return _Disconnect(code, reason, reconnect)
        case _:
            raise AssertionError(f"the plain protocol has no message for {type(push).__name__}")


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
    """The payload, checked to be JSON. If it is empty, returns `empty`: `NO_PAYLOAD` omits the field."""
    return check_json(payload) if payload else empty
