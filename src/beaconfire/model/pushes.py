"""Pushes: messages that the server sends without a request.

These are the pushes of the Centrifuge client protocol v2 (sections 1 and 14 of the protocol reference). Other
protocols translate these pushes into their own messages.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Raw, Struct

from beaconfire.model.publication import NO_PAYLOAD, ClientInfo, Publication


class PublicationPush(Struct, frozen=True):
    """A publication in a channel to which the client is subscribed (section 14)."""

    channel: str
    pub: Publication


class JoinPush(Struct, frozen=True):
    """A client has subscribed to the channel (section 14)."""

    channel: str
    info: ClientInfo


class LeavePush(Struct, frozen=True):
    """A client is no longer subscribed to the channel (section 14)."""

    channel: str
    info: ClientInfo


class UnsubscribePush(Struct, frozen=True):
    """The server has ended a subscription. From code 2500 on the client subscribes again (sections 14 and 15)."""

    channel: str
    code: int
    reason: str


class SubscribePush(Struct, frozen=True):
    """The server has subscribed the client to a channel (section 14).

    `offset` and `epoch` are the position from which the subscription delivers, if it is `positioned`. `data` comes
    from the grant.
    """

    channel: str
    recoverable: bool = False
    epoch: str = ""
    offset: int = 0
    positioned: bool = False
    data: Raw = NO_PAYLOAD


class MessagePush(Struct, frozen=True):
    """Data for this client that belongs to no channel (section 14)."""

    data: Raw


class RefreshPush(Struct, frozen=True):
    """The server has changed the expiry of the connection (section 8). `ttl` is in seconds; 0 unless `expires`."""

    expires: bool
    ttl: int


class DisconnectPush(Struct, frozen=True):
    """The session ends (section 15). Used only by transports without a close frame (section 16)."""

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
