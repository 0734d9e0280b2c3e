"""Messages of clients: one struct per message type, with its conversion to a command.

The structs define all fields with their types and limits. msgspec checks them during decoding, in one or two
microseconds per message. Its error text becomes the `detail` of the error reply.
"""

from __future__ import annotations

import json
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from beaconfire.base.errors import BAD_REQUEST, METHOD_NOT_FOUND, ErrorCode
from beaconfire.model.identity import NAME_LENGTH_MAX
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest
from beaconfire.protocols import json_payload
from beaconfire.protocols.plain import lobby as lobby_frames
from beaconfire.protocols.plain.requests import (
    ClientPing,
    InvalidMessage,
    LeaveRoom,
    PlainCommand,
    Ref,
    RoomHistory,
    RoomMessage,
    RoomPresence,
    RoomRefresh,
    TokenRefresh,
)

HISTORY_LIMIT_DEFAULT = 100

_ID_STARTS = b'"-0123456789'
_EXPECTED_MESSAGE = "expected a text frame with one JSON object that has a string `type`"

_Room: TypeAlias = Annotated[str, Meta(min_length=1)]
_Name: TypeAlias = Annotated[str, Meta(max_length=NAME_LENGTH_MAX)]
_Natural: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _ClientMessage(Struct, tag_field="type", kw_only=True):
    """Base of all messages. Optional fields may also be null, because many languages write null for a field that is not
    set."""

    id: Raw = NO_PAYLOAD

    def command(self) -> PlainCommand:
        """Converts the message to a command."""
        raise NotImplementedError


class _Since(Struct):
    offset: _Natural | None = None
    epoch: str | None = None

    def position(self) -> StreamPosition:
        return StreamPosition(self.offset or 0, self.epoch or "")


class _Handshake(_ClientMessage, tag="handshake", kw_only=True):
    user: _Name | None = None
    token: str | None = None
    data: Raw = NO_PAYLOAD

    def command(self) -> PlainCommand:
        data = _copy(self.data)
        return PlainCommand(Ref(self.id), ConnectionRequest(token=self.token or "", user=self.user or "", data=data))


class _Join(_ClientMessage, tag="join", kw_only=True):
    room: _Room
    token: str | None = None
    since: _Since | None = None

    def command(self) -> PlainCommand:
        token, since = self.token or "", None if self.since is None else self.since.position()
        # Always recoverable if the channel allows it, so that users of this protocol need not know the option.
        request = SubscriptionRequest(self.room, token, since=since, recoverable=True)
        return PlainCommand(Ref(self.id, self.room), request)


class _Leave(_ClientMessage, tag="leave", kw_only=True):
    room: _Room

    def command(self) -> PlainCommand:
        return PlainCommand(Ref(self.id, self.room), LeaveRoom(self.room))


class _Message(_ClientMessage, tag="message", kw_only=True):
    room: _Room
    data: Raw
    echo: bool | None = None

    def command(self) -> PlainCommand:
        return PlainCommand(Ref(self.id, self.room), RoomMessage(self.room, self.data.copy(), self.echo or False))


class _Presence(_ClientMessage, tag="presence", kw_only=True):
    room: _Room

    def command(self) -> PlainCommand:
        return PlainCommand(Ref(self.id, self.room), RoomPresence(self.room))


class _History(_ClientMessage, tag="history", kw_only=True):
    room: _Room
    limit: _Natural | None = None
    since: _Since | None = None
    reverse: bool | None = None

    def command(self) -> PlainCommand:
        limit = HISTORY_LIMIT_DEFAULT if self.limit is None else self.limit
        since = None if self.since is None else self.since.position()
        request = RoomHistory(self.room, limit, since, self.reverse or False)
        return PlainCommand(Ref(self.id, self.room), request)


class _Refresh(_ClientMessage, tag="refresh", kw_only=True):
    token: str
    room: _Room | None = None

    def command(self) -> PlainCommand:
        if self.room is None:
            return PlainCommand(Ref(self.id), TokenRefresh(self.token))
        return PlainCommand(Ref(self.id, self.room), RoomRefresh(self.room, self.token))


class _Ping(_ClientMessage, tag="ping", kw_only=True):
    def command(self) -> PlainCommand:
        return PlainCommand(Ref(self.id), ClientPing())


class _Envelope(Struct):
    """The fields of all messages, to find the type of a frame that could not be decoded."""

    type: str
    id: Raw = NO_PAYLOAD


_CLIENT_MESSAGES = (_Handshake, _Join, _Leave, _Message, _Presence, _History, _Refresh, _Ping)
CLIENT_TYPES = frozenset(str(kind.__struct_config__.tag) for kind in _CLIENT_MESSAGES)
SERVER_TYPES = frozenset({"ack", "direct", "disconnect", "error", "joined", "left", "pong", "refreshed", "welcome"})
"""Types of server messages that clients must not send. The lobby rejects such frames: it would deliver them unchanged,
so other clients would take them for messages of the server."""

_decoder: msgspec.json.Decoder[_ClientMessage] = msgspec.json.Decoder(
    _Handshake | _Join | _Leave | _Message | _Presence | _History | _Refresh | _Ping
)
_envelope_decoder = msgspec.json.Decoder(_Envelope)


def decode(frame: bytes, binary: bool, lobby: bool) -> PlainCommand:
    """Decodes the command of one frame. The text of a text frame must be valid UTF-8. Never raises.

    If `lobby` is true, a frame that is no message becomes a `LobbyFrame`, otherwise an `InvalidMessage`.
    """
    problem = "the frame is binary"
    if not binary:
        try:
            message = json_payload.decode_json(_decoder.decode, frame)
        except json_payload.NotJSONError as error:
            problem = str(error)
        else:
            if bytes(message.id)[:1] in _ID_STARTS:  # This includes the empty text: no id.
                return message.command()
            if bytes(message.id) == b"null":
                message.id = NO_PAYLOAD
                return message.command()
            return _invalid(NO_PAYLOAD, BAD_REQUEST, "`id` must be a number or a string")
    return _decode_other(frame, binary, lobby, problem)


def _decode_other(frame: bytes, binary: bool, lobby: bool, problem: str) -> PlainCommand:
    """Decodes a frame that is not a valid message: a malformed message, or a lobby frame."""
    try:
        envelope = None if binary else _envelope(frame)
    except RecursionError:
        return _invalid(NO_PAYLOAD, BAD_REQUEST, "the object is nested too deeply")
    if envelope is not None and envelope.type in CLIENT_TYPES:
        return _invalid(_valid_id(envelope.id), BAD_REQUEST, f"{envelope.type}: {problem}")
    if envelope is not None and (not lobby or envelope.type in SERVER_TYPES):
        detail = "unknown `type`; expected one of " + ", ".join(sorted(CLIENT_TYPES))
        return _invalid(_valid_id(envelope.id), METHOD_NOT_FOUND, detail)
    if lobby:
        return PlainCommand(None, lobby_frames.wrap(frame, binary))
    return _invalid(NO_PAYLOAD, BAD_REQUEST, f"{_EXPECTED_MESSAGE}: {problem}")


def _envelope(frame: bytes) -> _Envelope | None:
    """The type and id of a frame. None if the frame is not an object with a string `type`. Raises RecursionError if the
    nesting is too deep to find out."""
    try:
        return json_payload.decode_json(_envelope_decoder.decode, frame)
    except json_payload.NotJSONError:
        if not frame.lstrip(b" \t\r\n").startswith(b"{"):
            return None
    # Browsers accept objects that the strict decoder rejects, for example with a duplicate `type`. The lobby would
    # deliver such a frame unchanged. So its type must be found here, or a client could send messages of the server.
    try:
        type_ = json.loads(frame, parse_int=float).get("type")
    except ValueError:
        return None
    return _Envelope(type_) if isinstance(type_, str) else None


def _valid_id(value: Raw) -> Raw:
    return value if bytes(value)[:1] in _ID_STARTS else NO_PAYLOAD


def _invalid(identifier: Raw, code: ErrorCode, detail: str) -> PlainCommand:
    return PlainCommand(Ref(identifier, malformed=True), InvalidMessage(code, detail))


def _copy(data: Raw) -> Raw:
    """Copies the payload, because a decoded payload keeps the whole frame in memory. `NO_PAYLOAD` is not copied."""
    return data if data is NO_PAYLOAD else data.copy()
