"""API methods about presence, history, channels, connections and nodes. The permissions of clients do not apply."""

from __future__ import annotations

from msgspec import UNSET, Raw, structs

from beaconfire.api.context import RESPONSE_LIMIT, ApiContext, client_entry, json_or_base64
from beaconfire.api.messages.calls import RpcRequest, RpcResult
from beaconfire.api.messages.common import EmptyResult
from beaconfire.api.messages.queries import (
    ChannelEntry,
    ChannelsRequest,
    ChannelsResult,
    ConnectionEntry,
    ConnectionsRequest,
    ConnectionsResult,
    HistoryRemoveRequest,
    HistoryRequest,
    HistoryResult,
    InfoRequest,
    InfoResult,
    NodeEntry,
    PresenceRequest,
    PresenceResult,
    PresenceStatsRequest,
    PresenceStatsResult,
    PublicationEntry,
)
from beaconfire.base.errors import METHOD_NOT_FOUND, CommandError
from beaconfire.model.events import LimitHit
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.node.cluster import ConnectionInfo, ConnectionsSurvey, HistoryRemoved
from beaconfire.session.reply_budget import ReplyBudget, client_info_size, texts_size

CHANNEL_BYTES = 20
"""The JSON of a channel in a list, in bytes, without its name."""

CONNECTION_BYTES = 320
"""The JSON of a connection in a list, in bytes, without its user and channels, with the longest SDK names."""


async def presence(api: ApiContext, request: PresenceRequest) -> PresenceResult:
    """All clients in a channel, or error 106: a part of them would look as if the others had left."""
    members = await api.channels.presence(request.channel, api.namespace(request.channel))
    api.check_size(
        sum(map(client_info_size, members.values())), f"presence of {request.channel!r}", "use presence_stats"
    )
    return PresenceResult(presence={client: client_entry(info) for client, info in members.items()})


async def presence_stats(api: ApiContext, request: PresenceStatsRequest) -> PresenceStatsResult:
    """The numbers of clients and users in a channel."""
    stats = await api.channels.presence_stats(request.channel, api.namespace(request.channel))
    return PresenceStatsResult(num_clients=stats.num_clients, num_users=stats.num_users)


async def history(api: ApiContext, request: HistoryRequest) -> HistoryResult:
    """A page of a channel's history, cut to `api.response_max_size`. The caller can continue from its last publication.
    `client.history_max_publication_limit` applies only to clients.
    """
    namespace = api.namespace(request.channel)
    since = StreamPosition(request.since.offset, request.since.epoch) if request.since is not None else None
    page = await api.channels.page(request.channel, namespace, request.limit, since, request.reverse)
    position = page.position
    fitting = ReplyBudget(int(api.options.response_max_size)).take(page.publications)
    if len(fitting) < len(page.publications):
        api.events.emit(LimitHit(RESPONSE_LIMIT, ""))
    publications = [_publication_entry(publication) for publication in fitting]
    return HistoryResult(publications=publications, epoch=position.epoch, offset=position.offset)


def _publication_entry(publication: Publication) -> PublicationEntry:
    data, b64data = json_or_base64(publication.data)
    return PublicationEntry(
        data=data,
        b64data=b64data,
        offset=publication.offset,
        tags=publication.tags or {},
        info=client_entry(publication.info) if publication.info is not None else UNSET,
    )


async def history_remove(api: ApiContext, request: HistoryRemoveRequest) -> EmptyResult:
    """Removes all publications of a channel from history. After an error the caller repeats the request."""
    await api.channels.remove_history(request.channel, api.namespace(request.channel))
    await api.cluster.send(HistoryRemoved(request.channel))
    return EmptyResult()


async def channels(api: ApiContext, request: ChannelsRequest) -> ChannelsResult:
    """All channels with subscribers, over all nodes, or error 106 if the list is too large. Error 100 if a node does
    not answer: the list without its channels would look whole."""
    counts = await api.cluster.channels(request.pattern)
    api.check_size(texts_size(counts) + len(counts) * CHANNEL_BYTES, "the list", "use a pattern for fewer channels")
    return ChannelsResult(channels={name: ChannelEntry(num_clients=count) for name, count in counts.items()})


async def connections(api: ApiContext, request: ConnectionsRequest) -> ConnectionsResult:
    """Connections of all nodes, cut to `limit` and to `api.response_max_size`. Error 100 if a node does not answer."""
    limit = request.limit
    # One more than requested, to find out whether there are more.
    found = await api.cluster.connections(ConnectionsSurvey(request.user, request.channel, limit + 1))
    entries: dict[str, ConnectionEntry] = {}
    size = 0
    for info in found[:limit]:
        size += CONNECTION_BYTES + len(info.user) + len(info.meta) + texts_size(info.channels)
        if size > api.options.response_max_size and entries:
            api.events.emit(LimitHit(RESPONSE_LIMIT, ""))
            break
        entries[info.client] = _connection_entry(info)
    return ConnectionsResult(connections=entries, truncated=len(found) > len(entries))


def _connection_entry(info: ConnectionInfo) -> ConnectionEntry:
    fields = structs.asdict(info)
    del fields["client"]
    return ConnectionEntry(**{**fields, "meta": Raw(info.meta) if info.meta else UNSET})


async def info(api: ApiContext, request: InfoRequest) -> InfoResult:
    """All nodes that answer in time."""
    return InfoResult(nodes=[NodeEntry(**structs.asdict(node)) for node in await api.cluster.nodes()])


async def rpc(api: ApiContext, request: RpcRequest) -> RpcResult:
    """Raises CommandError 104, because there are no RPC methods."""
    raise CommandError(METHOD_NOT_FOUND, f"no RPC method {request.method!r}: this server has none")
