"""What a command is answered with."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Raw, Struct

from beaconfire.model.publication import NO_PAYLOAD, ClientInfo, Publication


class SubscribeResult(Struct, frozen=True, omit_defaults=True):
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
    """Publications come as patches, section 11 of the reference."""


class ConnectResult(Struct, frozen=True, omit_defaults=True):
    """`ping` and `ttl` are whole seconds, `time` milliseconds since 1970."""

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


class UnsubscribeResult(Struct, frozen=True):
    pass


class PublishResult(Struct, frozen=True):
    """The native protocol sends it empty; the plain protocol and the server API show the position."""

    offset: int = 0
    epoch: str = ""


class PresenceResult(Struct, frozen=True):
    presence: dict[str, ClientInfo]


class PresenceStatsResult(Struct, frozen=True):
    num_clients: int
    num_users: int


class HistoryResult(Struct, frozen=True):
    publications: list[Publication]
    epoch: str
    offset: int


class PingResult(Struct, frozen=True):
    pass


class RPCResult(Struct, frozen=True, omit_defaults=True):
    data: Raw = NO_PAYLOAD


class RefreshResult(Struct, frozen=True, omit_defaults=True):
    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int = 0


class SubRefreshResult(Struct, frozen=True, omit_defaults=True):
    expires: bool = False
    ttl: int = 0


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
