"""What clients ask for: requests, and the command that carries one."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from msgspec import Raw, Struct

from beaconfire.base.errors import ErrorCode
from beaconfire.model.position import SincePosition
from beaconfire.model.publication import NO_PAYLOAD


class Conflate(Struct, frozen=True, omit_defaults=True):
    """A wish for the latest instead of all, our own addition: at most `max_rate` updates a second, 0 without a bound;
    and in any case only the latest while the connection takes nothing. See `conflation`."""

    max_rate: float = 0.0


class FilterNode(Struct, frozen=True, omit_defaults=True):
    """A node of a tags filter: a branch with `op` and `nodes`, or a comparison. See `tags_filter`."""

    op: str = ""
    key: str = ""
    cmp: str = ""
    val: str = ""
    vals: list[str] = []
    nodes: list[FilterNode] = []


class SubscribeRequest(Struct, frozen=True, omit_defaults=True):
    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: int = 0
    data: Raw = NO_PAYLOAD
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    delta: str = ""
    tf: FilterNode | None = None
    conflate: Conflate | None = None
    flag: int = 0
    type: int = 0


class ConnectRequest(Struct, frozen=True, omit_defaults=True):
    token: str = ""
    data: Raw = NO_PAYLOAD
    subs: dict[str, SubscribeRequest] = {}
    name: str = ""
    version: str = ""
    headers: dict[str, str] = {}
    user: str = ""
    """A name nobody has verified. Only the plain protocol sends it; it becomes an identity in insecure mode only."""


class UnsubscribeRequest(Struct, frozen=True, omit_defaults=True):
    channel: str = ""


class PublishRequest(Struct, frozen=True, omit_defaults=True):
    channel: str = ""
    data: Raw = NO_PAYLOAD


class PresenceRequest(Struct, frozen=True, omit_defaults=True):
    channel: str = ""


class PresenceStatsRequest(Struct, frozen=True, omit_defaults=True):
    channel: str = ""


class HistoryRequest(Struct, frozen=True, omit_defaults=True):
    """`limit` 0 asks for the position only; `since` is exclusive; `reverse` is newest first."""

    channel: str = ""
    limit: int = 0
    since: SincePosition | None = None
    reverse: bool = False


class PingRequest(Struct, frozen=True, omit_defaults=True):
    pass


class SendRequest(Struct, frozen=True, omit_defaults=True):
    data: Raw = NO_PAYLOAD


class RPCRequest(Struct, frozen=True, omit_defaults=True):
    data: Raw = NO_PAYLOAD
    method: str = ""


class RefreshRequest(Struct, frozen=True, omit_defaults=True):
    token: str = ""


class SubRefreshRequest(Struct, frozen=True, omit_defaults=True):
    channel: str = ""
    token: str = ""


class RoomMessage(Struct, frozen=True):
    """The plain protocol's publish: `echo` returns it to its sender, and its acknowledgement carries the offset."""

    channel: str
    data: Raw
    echo: bool = False
    tags: dict[str, str] | None = None


class LobbyFrame(Struct, frozen=True):
    """A frame that is no message of the plain protocol: everyone in the lobby gets it as it is."""

    data: Raw
    tags: dict[str, str]


class InvalidRequest(Struct, frozen=True):
    """A request that its protocol could place but not read. It is answered with this error and the session lives."""

    code: ErrorCode
    detail: str


Request: TypeAlias = (
    ConnectRequest
    | SubscribeRequest
    | UnsubscribeRequest
    | PublishRequest
    | PresenceRequest
    | PresenceStatsRequest
    | HistoryRequest
    | PingRequest
    | SendRequest
    | RPCRequest
    | RefreshRequest
    | SubRefreshRequest
    | RoomMessage
    | LobbyFrame
    | InvalidRequest
)


class Pong(Struct, frozen=True):
    """The answer to an application-level ping: an empty command."""


PONG = Pong()


class Command(NamedTuple):
    """A decoded request. `ref` is whatever its protocol needs to address the reply; nobody else looks into it.

    `ref` is None where no reply may be sent (pong, send, lobby frames).
    """

    ref: object
    request: Request | Pong
