"""The words sessions speak: commands, results, pushes and what they are made of.

These are the messages of the Centrifuge client protocol v2 (section 1 of its definition), which is our native
protocol; field names and order are its own, so the JSON codec needs no mapping. Other protocols translate into
the same words. All are frozen. A payload is `Raw`: bytes that nobody here interprets, JSON text for JSON clients.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from msgspec import Raw, Struct

from beaconfire.errors import ErrorCode

NO_PAYLOAD = Raw(b"")
"""The one empty payload. Encoders omit a payload field when it *is* this object."""


class StreamPosition(NamedTuple):
    """Where a client stands in a channel's stream. Offsets rise by one within an epoch; 0 is before the first."""

    offset: int
    epoch: str


class ClientInfo(Struct, frozen=True, omit_defaults=True):
    """Who published or is present. `conn_info` is from the connection's token, `chan_info` the subscription's."""

    user: str
    client: str
    conn_info: Raw = NO_PAYLOAD
    chan_info: Raw = NO_PAYLOAD


class Publication(Struct, frozen=True, omit_defaults=True):
    """Data published in a channel. `offset` is 0 in a channel without history; `epoch` comes with offset 1 only.

    On its way to one who asked for it, `delta` may be true: then the data is a patch (see `deltas`); and `conflated`
    may be how many publications before this one were left out in its favour (see `conflation`).
    """

    data: Raw = NO_PAYLOAD
    info: ClientInfo | None = None
    offset: int = 0
    tags: dict[str, str] | None = None
    epoch: str = ""
    delta: bool = False
    conflated: int = 0


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


# --- commands ----------------------------------------------------------------------------------------------------


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


class SincePosition(Struct, frozen=True, omit_defaults=True):
    """`StreamPosition` as it stands in requests, where both halves may be missing."""

    offset: int = 0
    epoch: str = ""


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


# --- results -----------------------------------------------------------------------------------------------------


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


# --- pushes ------------------------------------------------------------------------------------------------------


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
