"""Requests of the plain protocol that have no form in `beaconfire.model.requests`, and the command with a request."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from msgspec import Raw, Struct

from beaconfire.base.errors import ErrorCode
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest


class LeaveRoom(Struct, frozen=True):
    """Ends the subscription to the room. Succeeds as well if the session is not subscribed."""

    channel: str


class RoomMessage(Struct, frozen=True):
    """A publish. Unless `echo` is true, the sender does not get its own publication. The reply carries the offset."""

    channel: str
    data: Raw
    echo: bool = False


class RoomPresence(Struct, frozen=True):
    """Asks for the clients in the room."""

    channel: str


class RoomHistory(Struct, frozen=True):
    """Asks for a page of the room's history. The fields are the parameters of `Reading.history`."""

    channel: str
    limit: int
    since: StreamPosition | None = None
    reverse: bool = False


class TokenRefresh(Struct, frozen=True):
    """A new token for the connection."""

    token: str


class RoomRefresh(Struct, frozen=True):
    """A new token for the subscription to the room."""

    channel: str
    token: str


class ClientPing(Struct, frozen=True):
    """A ping of the client, which the server answers."""


class LobbyFrame(Struct, frozen=True):
    """A frame that is no message of the protocol. It is published unchanged in the lobby channel."""

    data: Raw
    tags: dict[str, str]


class InvalidMessage(Struct, frozen=True):
    """A malformed message. The reply is this error, and the session continues."""

    code: ErrorCode
    detail: str


PlainRequest: TypeAlias = (
    ConnectionRequest
    | SubscriptionRequest
    | LeaveRoom
    | RoomMessage
    | RoomPresence
    | RoomHistory
    | TokenRefresh
    | RoomRefresh
    | ClientPing
    | LobbyFrame
    | InvalidMessage
)


class Ref(Struct, frozen=True):
    """The data that a reply needs: the JSON text of the `id`, the room, and whether the message was malformed."""

    id: Raw = NO_PAYLOAD
    room: str = ""
    malformed: bool = False


class PlainCommand(NamedTuple):
    """A decoded message. `ref` is None for a lobby frame, which has no reply."""

    ref: Ref | None
    request: PlainRequest
