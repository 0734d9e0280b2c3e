"""What backends ask and what they get: every request and result of the server API.

Field names are those of the Centrifuge server API (section 20 of its reference), so that its clients work unchanged;
`exclude`, `b64conn_info`, `b64chan_info` and the `connections` method are ours. Fields nobody here knows are ignored.
A field without a default is required; null counts as a field left out, except for `data`, where it is JSON's null.
The descriptions are what the OpenAPI document and `docs/reference/server-api.md` say.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

U63_MAX = 2**63 - 1
CONNECTIONS_MAX = 10_000

Unsigned = Annotated[int, Meta(ge=0, le=U63_MAX)]
Channel = Annotated[str, Meta(min_length=1, description="The channel's name.")]
Json = Annotated[Raw, Meta(description="Any JSON.")]


class Request(Struct, frozen=True, kw_only=True):
    """Base of all requests."""


class Result(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all results. Fields with a default are left out when they have it."""


class Position(Request, frozen=True, kw_only=True):
    """A place in a channel's stream: the offset of a publication, and the epoch it counts in."""

    offset: Unsigned = 0
    epoch: Annotated[str, Meta(description="As it came with the offset; empty is not compared.")] = ""


# --- publish and broadcast -----------------------------------------------------------------------------------------


class Message(Request, frozen=True, kw_only=True):
    """What publish and broadcast have in common."""

    data: (
        Annotated[
            Raw, Meta(description="Any JSON; subscribers get its very text. Required, unless there is `b64data`.")
        ]
        | UnsetType
    ) = UNSET
    b64data: Annotated[
        str,
        Meta(
            description="Instead of `data`: any bytes, in base64. Bytes that are no JSON reach Protobuf clients only."
        ),
    ] = ""
    skip_history: Annotated[bool, Meta(description="Deliver it, but keep it out of the channel's history.")] = False
    tags: Annotated[dict[str, str], Meta(description="Labels that travel with the publication.")] = {}
    idempotency_key: Annotated[
        str,
        Meta(
            max_length=1024,
            description="A second request with this key in the channel within five minutes changes nothing "
            "and gets the first one's answer.",
        ),
    ] = ""
    delta: Annotated[
        bool,
        Meta(
            description="Subscribers who asked for deltas are sent what changed since the publication before, where "
            "that is less. Always so with the channel option `delta_publish`."
        ),
    ] = False
    version: Annotated[
        int,
        Meta(
            ge=0,
            le=U63_MAX,
            description="Above 0: if the channel already has this version or a later one, nothing is published "
            "and the answer is the current position. Needs history.",
        ),
    ] = 0
    version_epoch: Annotated[str, Meta(description="Versions of another epoch are not compared.")] = ""
    exclude: Annotated[
        list[str], Meta(description="Client ids that do not get it live. It is in their history all the same.")
    ] = []


class PublishRequest(Message, frozen=True, kw_only=True):
    """Stored, if the channel keeps history, and sent to its subscribers in one step."""

    channel: Channel


class PublishResult(Result, frozen=True, kw_only=True, omit_defaults=True):
    """The publication's position; empty in a channel without history."""

    offset: int = 0
    epoch: str = ""


class BroadcastRequest(Message, frozen=True, kw_only=True):
    """Every channel is published to for itself: one may fail while others succeed."""

    channels: Annotated[list[str], Meta(min_length=1, description="Names of channels.")]


class ApiError(Result, frozen=True, kw_only=True, omit_defaults=True):
    """A failure. `code` and `message` are from the table of errors; `detail` says what to change."""

    code: int
    message: str
    detail: str = ""


class PublishResponse(Result, frozen=True, kw_only=True, omit_defaults=True):
    """Either of them."""

    result: PublishResult | UnsetType = UNSET
    error: ApiError | UnsetType = UNSET


class BroadcastResult(Result, frozen=True, kw_only=True, omit_defaults=True):
    """One response for each channel, in the order of the request."""

    responses: list[PublishResponse]


# --- sessions ------------------------------------------------------------------------------------------------------


class Selection(Request, frozen=True, kw_only=True):
    """Which connections are meant. At least one of the three is required, and all that are given must be true of a
    connection; where they are true of none, nothing happens, and that is no error.
    """

    user: Annotated[str, Meta(description="All connections of this user. This, `client` or `session` is required.")] = (
        ""
    )
    client: Annotated[
        str, Meta(description="Only the connection with this client id; with `user`, only if it is theirs.")
    ] = ""
    session: Annotated[
        str,
        Meta(
            description="Only the connection with this session id: the `session` of its connect result, or its client "
            "id where that is empty, as over WebSocket. With `user` or `client`, only if they are true of it too; "
            "otherwise nothing happens, as for an unknown client."
        ),
    ] = ""


class Switch(Request, frozen=True, kw_only=True):
    """A boolean that is there or not."""

    value: bool = False


class SubscriptionSwitches(Request, frozen=True, kw_only=True):
    """Options of the channel's namespace to change for one subscription."""

    presence: Switch | None = None
    join_leave: Switch | None = None
    force_push_join_leave: Switch | None = None
    force_positioning: Switch | None = None
    force_recovery: Switch | None = None


class SubscribeRequest(Selection, frozen=True, kw_only=True):
    """Server-side: the clients did not ask and need no permission. Who is in the channel already stays as it is."""

    channel: Channel
    info: (
        Annotated[
            Raw, Meta(description="JSON shown to others in this channel, as `chan_info` in presence, joins and leaves.")
        ]
        | UnsetType
    ) = UNSET
    b64info: Annotated[str, Meta(description="Instead of `info`: any bytes, in base64.")] = ""
    data: Annotated[Raw, Meta(description="JSON given to the client with the subscription.")] | UnsetType = UNSET
    b64data: Annotated[str, Meta(description="Instead of `data`: any bytes, in base64.")] = ""
    expire_at: Annotated[
        int, Meta(ge=0, le=U63_MAX, description="When the subscription ends, in seconds since 1970; 0 is never.")
    ] = 0
    recover_since: Annotated[
        Position | None, Meta(description="Give the client what was published after this position.")
    ] = None
    override: Annotated[
        SubscriptionSwitches | None, Meta(description="Channel options to change for this subscription.")
    ] = None


class UnsubscribeRequest(Selection, frozen=True, kw_only=True):
    """Clients are told, with code 2000, and do not subscribe again by themselves."""

    channel: Annotated[str, Meta(description="The channel's name; empty is every channel.")] = ""


class DisconnectReason(Request, frozen=True, kw_only=True):
    """What the clients are told. 3500 to 3999 and 4500 to 4999 mean: do not come back."""

    code: Annotated[int, Meta(description="3000 to 4999; 0 is 3503, force disconnect.")] = 0
    reason: Annotated[
        str,
        Meta(
            description="At most 123 bytes; by default the one that belongs to the code. Use plain words, because the "
            "JavaScript SDK reads a reason that is JSON as something else."
        ),
    ] = ""


class DisconnectRequest(Selection, frozen=True, kw_only=True):
    """Ends connections, by default for good."""

    disconnect: Annotated[
        DisconnectReason | None, Meta(description="Code and reason; by default 3503, force disconnect.")
    ] = None
    whitelist: Annotated[list[str], Meta(description="Client ids that stay.")] = []


class RefreshRequest(Selection, frozen=True, kw_only=True):
    """Moves the moment at which connections expire."""

    expired: Annotated[bool, Meta(description="Expire now: disconnect 3005, clients come back with new tokens.")] = (
        False
    )
    expire_at: Annotated[
        int, Meta(ge=0, le=U63_MAX, description="The new end of the connections, in seconds since 1970; 0 is never.")
    ] = 0
    info: (
        Annotated[
            Raw,
            Meta(
                description="JSON that replaces the connections' `conn_info`: in presence at once, in leaves and "
                "beside what they publish from then on."
            ),
        ]
        | UnsetType
    ) = UNSET


class Nothing(Result, frozen=True, kw_only=True, omit_defaults=True):
    """`{}`: done. Also when nobody was concerned, because users may be connected to any node, or to none."""


# --- questions -----------------------------------------------------------------------------------------------------


class PresenceRequest(Request, frozen=True, kw_only=True):
    """Error 108 where the channel's namespace has no presence."""

    channel: Channel


class ClientEntry(Result, frozen=True, kw_only=True, omit_defaults=True):
    """A client in a channel."""

    user: str
    client: str
    conn_info: Annotated[Raw, Meta(description="JSON from the connection's token.")] | UnsetType = UNSET
    chan_info: Annotated[Raw, Meta(description="JSON from the subscription's token.")] | UnsetType = UNSET
    b64conn_info: Annotated[str, Meta(description="Instead of `conn_info` where that is not JSON.")] = ""
    b64chan_info: Annotated[str, Meta(description="Instead of `chan_info` where that is not JSON.")] = ""


class PresenceResult(Result, frozen=True, kw_only=True, omit_defaults=True):
    """Client id to client."""

    presence: dict[str, ClientEntry]


class PresenceStatsRequest(PresenceRequest, frozen=True, kw_only=True):
    """Error 108 where the channel's namespace has no presence."""


class PresenceStatsResult(Result, frozen=True, kw_only=True, omit_defaults=True):
    """Numbers of clients, and of distinct users among them."""

    num_clients: int
    num_users: int


class HistoryRequest(Request, frozen=True, kw_only=True):
    """Error 108 where the channel keeps no history, 112 if `since` counts in another epoch than the stream."""

    channel: Channel
    limit: Annotated[
        int,
        Meta(
            ge=-(2**31),
            le=2**31 - 1,
            description="How many publications at most; 0 is none, only the position; below 0 is all.",
        ),
    ] = 0
    since: Annotated[
        Position | None, Meta(description="Only later ones than this position; with `reverse`, only earlier ones.")
    ] = None
    reverse: Annotated[bool, Meta(description="Newest first.")] = False


class PublicationEntry(Result, frozen=True, kw_only=True, omit_defaults=True):
    """A publication in history."""

    data: Annotated[Raw, Meta(description="The JSON that was published.")] | UnsetType = UNSET
    b64data: Annotated[
        str, Meta(description="Instead of `data` where that is not JSON: a Protobuf client or `b64data` published it.")
    ] = ""
    offset: int = 0
    tags: dict[str, str] = {}
    info: Annotated[ClientEntry | UnsetType, Meta(description="Who published it, if a client did.")] = UNSET


class HistoryResult(Result, frozen=True, kw_only=True, omit_defaults=True):
    """A page, and the position of the stream's latest publication."""

    publications: list[PublicationEntry]
    epoch: str
    offset: int


class HistoryRemoveRequest(Request, frozen=True, kw_only=True):
    """Publications are forgotten, offsets go on."""

    channel: Channel


class ChannelsRequest(Request, frozen=True, kw_only=True):
    """On all nodes. Expensive with very many channels: for administration, not for every request."""

    pattern: Annotated[str, Meta(description="A glob like `chat:*`; empty is every channel.")] = ""


class ChannelEntry(Result, frozen=True, kw_only=True, omit_defaults=True):
    """How many clients are subscribed to a channel."""

    num_clients: int


class ChannelsResult(Result, frozen=True, kw_only=True, omit_defaults=True):
    """Name to channel, for channels with subscribers."""

    channels: dict[str, ChannelEntry]


class ConnectionsRequest(Request, frozen=True, kw_only=True):
    """On all nodes. `user` and `channel` narrow each other."""

    user: Annotated[str, Meta(description="Only connections of this user.")] = ""
    channel: Annotated[str, Meta(description="Only connections subscribed to this channel.")] = ""
    limit: Annotated[int, Meta(ge=1, le=CONNECTIONS_MAX, description="How many at most.")] = 1000


class ConnectionEntry(Result, frozen=True, kw_only=True, omit_defaults=True):
    """A connection. `app_name` and `app_version` are what its SDK says of itself."""

    user: str
    transport: str
    protocol: str
    channels: list[str]
    connected_at_ms: int
    app_name: str = ""
    app_version: str = ""


class ConnectionsResult(Result, frozen=True, kw_only=True, omit_defaults=True):
    """Client id to connection."""

    connections: dict[str, ConnectionEntry]
    truncated: Annotated[bool, Meta(description="There are more: than `limit`, or than fit into an answer.")] = False


class InfoRequest(Request, frozen=True, kw_only=True):
    """Asks every node."""


class NodeEntry(Result, frozen=True, kw_only=True, omit_defaults=True):
    """A node. `uptime` is seconds."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_channels: int
    num_subs: int
    uptime: int


class InfoResult(Result, frozen=True, kw_only=True, omit_defaults=True):
    """The nodes that answered in time."""

    nodes: list[NodeEntry]


# --- batch and rpc -------------------------------------------------------------------------------------------------


class BatchRequest(Request, frozen=True, kw_only=True):
    """One command may fail while others succeed. A batch holds no batch."""

    commands: Annotated[
        list[dict[str, Raw]], Meta(description='Each an object like `{"publish": {…}}`: a method and its request.')
    ]
    parallel: Annotated[bool, Meta(description="Do not wait for one command before the next one starts.")] = False


class BatchResult(Result, frozen=True, kw_only=True, omit_defaults=True):
    """One reply for each command in their order: an object like `{"publish": {…}}`, or `{"error": {…}}`."""

    replies: list[dict[str, Any]]


class RpcRequest(Request, frozen=True, kw_only=True):
    """There are no methods yet, so every call is answered with error 104."""

    method: Annotated[str, Meta(min_length=1, description="The method's name.")]
    params: Json | UnsetType = UNSET


class RpcResult(Result, frozen=True, kw_only=True, omit_defaults=True):
    """What the method returned."""

    data: Json | UnsetType = UNSET
