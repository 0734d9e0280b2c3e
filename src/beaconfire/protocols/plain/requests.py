"""What clients send: one struct per message type, and how each becomes a command of the core.

The structs are the reference: a field, its type and its bounds stand here once, msgspec checks them while it decodes
(a microsecond or two per message), and what it finds wrong is the `detail` of the error.
"""

from __future__ import annotations

import json
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from beaconfire.base.errors import BAD_REQUEST, METHOD_NOT_FOUND, ErrorCode
from beaconfire.model.identity import NAME_LENGTH_MAX
from beaconfire.model.position import SincePosition
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.model.requests import (
    Command,
    ConnectRequest,
    HistoryRequest,
    InvalidRequest,
    PingRequest,
    PresenceRequest,
    RefreshRequest,
    RoomMessage,
    SubRefreshRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from beaconfire.protocols import json_payload
from beaconfire.protocols.plain import lobby as lobby_frames

HISTORY_LIMIT_DEFAULT = 100

_ID_STARTS = b'"-0123456789'
_NO_MESSAGE = "a message is a text frame with one JSON object that has a string `type`; this is none"

_Room: TypeAlias = Annotated[str, Meta(min_length=1)]
_Name: TypeAlias = Annotated[str, Meta(max_length=NAME_LENGTH_MAX)]
_Natural: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Ref(Struct, frozen=True):
    """What an answer needs: the `id` as the client wrote it, the room it is about, whether it could be read."""

    id: Raw = NO_PAYLOAD
    room: str = ""
    malformed: bool = False


class _Incoming(Struct, tag_field="type", kw_only=True):
    """Optional fields may be null as well as missing: many languages write what is not set as null."""

    id: Raw = NO_PAYLOAD

    def command(self) -> Command:
        raise NotImplementedError


class _Since(Struct):
    offset: _Natural | None = None
    epoch: str | None = None

    def position(self) -> SincePosition:
        return SincePosition(self.offset or 0, self.epoch or "")


class _Handshake(_Incoming, tag="handshake", kw_only=True):
    user: _Name | None = None
    token: str | None = None
    data: Raw = NO_PAYLOAD

    def command(self) -> Command:
        data = _own(self.data)
        return Command(Ref(self.id), ConnectRequest(token=self.token or "", user=self.user or "", data=data))


class _Join(_Incoming, tag="join", kw_only=True):
    room: _Room
    token: str | None = None
    since: _Since | None = None

    def command(self) -> Command:
        token, since = self.token or "", None if self.since is None else self.since.position()
        # Recoverable wherever that may be asked for: people without an SDK should not have to know the word.
        request = SubscribeRequest(
            channel=self.room,
            token=token,
            recover=since is not None,
            epoch=since.epoch if since is not None else "",
            offset=since.offset if since is not None else 0,
            recoverable=True,
        )
        return Command(Ref(self.id, self.room), request)


class _Leave(_Incoming, tag="leave", kw_only=True):
    room: _Room

    def command(self) -> Command:
        return Command(Ref(self.id, self.room), UnsubscribeRequest(channel=self.room))


class _Message(_Incoming, tag="message", kw_only=True):
    room: _Room
    data: Raw
    echo: bool | None = None

    def command(self) -> Command:
        return Command(Ref(self.id, self.room), RoomMessage(self.room, self.data.copy(), self.echo or False))


class _Presence(_Incoming, tag="presence", kw_only=True):
    room: _Room

    def command(self) -> Command:
        return Command(Ref(self.id, self.room), PresenceRequest(channel=self.room))


class _History(_Incoming, tag="history", kw_only=True):
    room: _Room
    limit: _Natural | None = None
    since: _Since | None = None
    reverse: bool | None = None

    def command(self) -> Command:
        limit = HISTORY_LIMIT_DEFAULT if self.limit is None else self.limit
        since = None if self.since is None else self.since.position()
        request = HistoryRequest(channel=self.room, limit=limit, since=since, reverse=self.reverse or False)
        return Command(Ref(self.id, self.room), request)


class _Refresh(_Incoming, tag="refresh", kw_only=True):
    token: str
    room: _Room | None = None

    def command(self) -> Command:
        if self.room is None:
            return Command(Ref(self.id), RefreshRequest(token=self.token))
        return Command(Ref(self.id, self.room), SubRefreshRequest(channel=self.room, token=self.token))


class _Ping(_Incoming, tag="ping", kw_only=True):
    def command(self) -> Command:
        return Command(Ref(self.id), PingRequest())


class _Envelope(Struct):
    """What any message has, to find out what a frame that did not fit was meant to be."""

    type: str
    id: Raw = NO_PAYLOAD


_KNOWN = (_Handshake, _Join, _Leave, _Message, _Presence, _History, _Refresh, _Ping)
KNOWN_TYPES = frozenset(str(kind.__struct_config__.tag) for kind in _KNOWN)
SERVER_TYPES = frozenset({"ack", "direct", "disconnect", "error", "joined", "left", "pong", "refreshed", "welcome"})
"""What only the server says: never a lobby frame, or any client could pass for it."""

_decoder: msgspec.json.Decoder[_Incoming] = msgspec.json.Decoder(
    _Handshake | _Join | _Leave | _Message | _Presence | _History | _Refresh | _Ping
)
_envelope_decoder = msgspec.json.Decoder(_Envelope)


def read(frame: bytes, binary: bool, lobby: bool) -> Command:
    """The one command of a frame; text frames are valid UTF-8. `lobby` takes what is no message. Never raises."""
    problem = "it is binary"
    if not binary:
        try:
            message = json_payload.read(_decoder.decode, frame)
        except json_payload.NotJSONError as error:
            problem = str(error)
        else:
            if bytes(message.id)[:1] in _ID_STARTS:  # an empty one too: no id
                return message.command()
            if bytes(message.id) == b"null":
                message.id = NO_PAYLOAD
                return message.command()
            return _invalid(NO_PAYLOAD, BAD_REQUEST, "`id` must be a number or a string")
    return _read_misfit(frame, binary, lobby, problem)


def _read_misfit(frame: bytes, binary: bool, lobby: bool, problem: str) -> Command:
    """A frame that is none of our messages: one of ours gone wrong, or somebody else's."""
    try:
        envelope = None if binary else _envelope(frame)
    except RecursionError:
        return _invalid(NO_PAYLOAD, BAD_REQUEST, "the object is nested too deeply")
    if envelope is not None and envelope.type in KNOWN_TYPES:
        return _invalid(_valid_id(envelope.id), BAD_REQUEST, f"{envelope.type}: {problem}")
    if envelope is not None and (not lobby or envelope.type in SERVER_TYPES):
        detail = "there is no such `type` for clients; it may be " + ", ".join(sorted(KNOWN_TYPES))
        return _invalid(_valid_id(envelope.id), METHOD_NOT_FOUND, detail)
    if lobby:
        return Command(None, lobby_frames.wrap(frame, binary))
    return _invalid(NO_PAYLOAD, BAD_REQUEST, f"{_NO_MESSAGE}: {problem}")


def _envelope(frame: bytes) -> _Envelope | None:
    """None for what is no object with a string type. Raises RecursionError if that cannot be told."""
    try:
        return json_payload.read(_envelope_decoder.decode, frame)
    except json_payload.NotJSONError:
        if not frame.lstrip(b" \t\r\n").startswith(b"{"):
            return None
    # Browsers read objects that our decoder refuses: with half a surrogate pair, with `type` given twice. In the lobby
    # they reach other clients as they are, so their type must be seen here or anyone could speak as the server.
    try:
        type_ = json.loads(frame, parse_int=float).get("type")
    except ValueError:
        return None
    return _Envelope(type_) if isinstance(type_, str) else None


def _valid_id(value: Raw) -> Raw:
    return value if bytes(value)[:1] in _ID_STARTS else NO_PAYLOAD


def _invalid(identifier: Raw, code: ErrorCode, detail: str) -> Command:
    return Command(Ref(identifier, malformed=True), InvalidRequest(code, detail))


def _own(data: Raw) -> Raw:
    """A copy that does not keep the whole frame alive; the one empty payload stays itself."""
    return data if data is NO_PAYLOAD else data.copy()
