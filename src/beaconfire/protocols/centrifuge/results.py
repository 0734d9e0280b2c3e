"""Results of the Centrifuge client protocol v2 (section 1 of the protocol reference): the successful replies."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Raw, Struct

from beaconfire.model.publication import NO_PAYLOAD, ClientInfo, Publication


class SubscribeResult(Struct, frozen=True, omit_defaults=True):
    """The client is subscribed (section 9).

    `ttl` is the time in seconds after which the client must refresh the subscription, if `expires`. `offset` and
    `epoch` are the position of the subscription. `publications` are in ascending order of offsets. `recovered` tells
    whether they are all that the client missed; it has a meaning only if `was_recovering` is true, which means that
    the request asked for recovery (section 10). After a successful recovery, `offset` is that of the request.
    """

    expires: bool = False
    ttl: int = 0
    recoverable: bool = False
    epoch: str = ""
    publications: list[Publication] = []
    recovered: bool = False
    offset: int = 0
    positioned: bool = False
    data: Raw = NO_PAYLOAD
    was_recovering: bool = False
    delta: bool = False
    """Publications may be delivered as patches (section 11)."""
    ticket: str = ""
    """For the next subscription to the channel, beside the token. Empty if the client must keep the ticket it has."""


class ConnectResult(Struct, frozen=True, omit_defaults=True):
    """The session is connected (section 6).

    `client` is the id of the session. `ttl` is the time in seconds after which the client must refresh the
    connection, if `expires`. `subs` holds the server-side subscriptions by channel. `ping` is the interval of
    application-level pings in seconds, 0 if there are none; `pong` tells whether the client must answer them.
    `session` is a secret session id, and `node` the id of this node, for emulation (section 16). `time` is in
    milliseconds since 1970. `ticket` is for the next connect, beside the token; empty if the client must keep the
    ticket it has.
    """

    client: str
    version: str
    expires: bool = False
    ttl: int = 0
    data: Raw = NO_PAYLOAD
    subs: dict[str, SubscribeResult] = {}
    ping: int = 0
    pong: bool = False
    session: str = ""
    node: str = ""
    time: int = 0
    ticket: str = ""


class UnsubscribeResult(Struct, frozen=True):
    """The client is not subscribed to the channel any more (section 9)."""


class PublishResult(Struct, frozen=True):
    """The publication was accepted (section 13). This protocol does not send its position."""


class PresenceResult(Struct, frozen=True):
    """The clients that are present in a channel, by client id (section 13)."""

    presence: dict[str, ClientInfo]


class PresenceStatsResult(Struct, frozen=True):
    """The numbers of clients and of distinct users in a channel; the anonymous user counts as one (section 13)."""

    num_clients: int
    num_users: int


class HistoryResult(Struct, frozen=True):
    """A page of a channel's history (section 13).

    `offset` and `epoch` are the top position of the stream, not the end of the page.
    """

    publications: list[Publication]
    epoch: str
    offset: int


class PingResult(Struct, frozen=True):
    """The reply to a ping command (section 13)."""


class RPCResult(Struct, frozen=True, omit_defaults=True):
    """The data that an RPC method returned (section 13)."""

    data: Raw = NO_PAYLOAD


class RefreshResult(Struct, frozen=True, omit_defaults=True):
    """The connection has a new expiry (section 8). `ttl` is in seconds; 0 unless `expires`. `ticket` as above."""

    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int = 0
    ticket: str = ""


class SubRefreshResult(Struct, frozen=True, omit_defaults=True):
    """The subscription has a new expiry (section 8). `ttl` is in seconds; 0 unless `expires`. `ticket` as above."""

    expires: bool = False
    ttl: int = 0
    ticket: str = ""


Result: TypeAlias = (
    ConnectResult
    | SubscribeResult
    | UnsubscribeResult
    | PublishResult
    | PresenceResult
    | PresenceStatsResult
    | HistoryResult
    | PingResult
    | RPCResult
    | RefreshResult
    | SubRefreshResult
)
