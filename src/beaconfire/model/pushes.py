"""What the server sends without being asked."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Raw, Struct

from beaconfire.model.publication import NO_PAYLOAD, ClientInfo, Publication


class PublicationPush(Struct, frozen=True):
    channel: str
    pub: Publication


class JoinPush(Struct, frozen=True):
    channel: str
    info: ClientInfo


class LeavePush(Struct, frozen=True):
    channel: str
    info: ClientInfo


class UnsubscribePush(Struct, frozen=True):
    channel: str
    code: int
    reason: str


class SubscribePush(Struct, frozen=True):
    channel: str
    recoverable: bool = False
    epoch: str = ""
    offset: int = 0
    positioned: bool = False
    data: Raw = NO_PAYLOAD


class MessagePush(Struct, frozen=True):
    """Data for this one client, outside any channel."""

    data: Raw


class RefreshPush(Struct, frozen=True):
    expires: bool
    ttl: int


class DisconnectPush(Struct, frozen=True):
    """Only for transports that have no close frame of their own."""

    code: int
    reason: str
    reconnect: bool


Push: TypeAlias = (
    PublicationPush
    | JoinPush
    | LeavePush
    | UnsubscribePush
    | SubscribePush
    | MessagePush
    | RefreshPush
    | DisconnectPush
)
