"""Requests and results of the methods that read or remove data: presence, presence_stats, history, history_remove,
channels, connections and info.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Raw, UnsetType, field

from beaconfire.api.messages.common import ApiRequest, ApiResult, ChannelName, Position

CONNECTIONS_MAX = 10_000


class PresenceRequest(ApiRequest, frozen=True, kw_only=True):
    """Error 108 if presence is disabled in the namespace of the channel."""

    channel: ChannelName


class ClientEntry(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """A client in a channel."""

    user: str
    client: str
    conn_info: Annotated[Raw, Meta(description="JSON from the token of the connection.")] | UnsetType = UNSET
    chan_info: Annotated[Raw, Meta(description="JSON from the token of the subscription.")] | UnsetType = UNSET
    b64conn_info: Annotated[str, Meta(description="`conn_info` in base64, if it is not JSON.")] = ""
    b64chan_info: Annotated[str, Meta(description="`chan_info` in base64, if it is not JSON.")] = ""


class PresenceResult(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """All clients in the channel, by client id."""

    presence: dict[str, ClientEntry]


class PresenceStatsRequest(PresenceRequest, frozen=True, kw_only=True):
    """Error 108 if presence is disabled in the namespace of the channel."""


class PresenceStatsResult(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """The number of clients, and the number of distinct users among them."""

    num_clients: int
    num_users: int


class HistoryRequest(ApiRequest, frozen=True, kw_only=True):
    """Error 108 if the channel has no history. Error 112 if the epoch of `since` is not that of the stream."""

    channel: ChannelName
    limit: Annotated[
        int,
        Meta(
            ge=-(2**31),
            le=2**31 - 1,
            description="The largest number of publications. 0 returns only the position, a negative number all "
            "publications.",
        ),
    ] = 0
    since: Annotated[
        Position | None,
        Meta(description="Return only publications after this position. With `reverse`, only those before it."),
    ] = None
    reverse: Annotated[bool, Meta(description="Return the newest publications first.")] = False


class PublicationEntry(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """A publication in history."""

    data: Annotated[Raw, Meta(description="The published JSON.")] | UnsetType = UNSET
    b64data: Annotated[
        str,
        Meta(
            description="The data in base64, if it is not JSON. A client that uses Protobuf published it, or `b64data`."
        ),
    ] = ""
    offset: int = 0
    tags: dict[str, str] = field(default_factory=dict)
    info: Annotated[ClientEntry | UnsetType, Meta(description="The client that published, if it was a client.")] = UNSET


class HistoryResult(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """A page of publications, and the position of the latest publication of the stream."""

    publications: list[PublicationEntry]
    epoch: str
    offset: int


class HistoryRemoveRequest(ApiRequest, frozen=True, kw_only=True):
    """The publications are removed. Offsets continue from the current position."""

    channel: ChannelName


class ChannelsRequest(ApiRequest, frozen=True, kw_only=True):
    """Asks all nodes. Slow with very many channels: use it for administration, not in every request of your
    application."""

    pattern: Annotated[str, Meta(description="A glob pattern like `chat:*`. Empty means all channels.")] = ""


class ChannelEntry(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """The number of clients that are subscribed to a channel."""

    num_clients: int


class ChannelsResult(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """All channels with subscribers, by name."""

    channels: dict[str, ChannelEntry]


class ConnectionsRequest(ApiRequest, frozen=True, kw_only=True):
    """Asks all nodes. If `user` and `channel` are given, both must match."""

    user: Annotated[str, Meta(description="Only connections of this user.")] = ""
    channel: Annotated[str, Meta(description="Only connections that are subscribed to this channel.")] = ""
    limit: Annotated[int, Meta(ge=1, le=CONNECTIONS_MAX, description="The largest number of connections.")] = 1000


class ConnectionEntry(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """A connection. `app_name` and `app_version` are the name and version that its SDK sent."""

    user: str
    transport: str
    protocol: str
    channels: list[str]
    connected_at_ms: int
    app_name: str = ""
    app_version: str = ""
    meta: Annotated[Raw, Meta(description="The `meta` claim of the connection's token.")] | UnsetType = UNSET


class ConnectionsResult(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """Connections by client id."""

    connections: dict[str, ConnectionEntry]
    truncated: Annotated[
        bool,
        Meta(description="There are more connections than `limit`, or more than fit into one response."),
    ] = False


class InfoRequest(ApiRequest, frozen=True, kw_only=True):
    """Asks all nodes."""


class NodeEntry(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """A node. `uptime` is in seconds."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_channels: int
    num_subs: int
    uptime: int


class InfoResult(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """The nodes that answered in time."""

    nodes: list[NodeEntry]
