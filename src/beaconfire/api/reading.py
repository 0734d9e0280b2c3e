"""What backends may ask: about channels, connections and nodes. They are not held to clients' permissions."""

from __future__ import annotations

from msgspec import UNSET, structs

from beaconfire.api.context import RESPONSE_LIMIT, ApiContext, client_entry, shown
from beaconfire.api.requests import (
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
    Nothing,
    PresenceRequest,
    PresenceResult,
    PresenceStatsRequest,
    PresenceStatsResult,
    PublicationEntry,
    RpcRequest,
    RpcResult,
)
from beaconfire.base.errors import METHOD_NOT_FOUND, CommandError
from beaconfire.model.events import LimitHit
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.node.cluster import ConnectionInfo, ConnectionsSurvey
from beaconfire.session.reply_budget import ReplyBudget, client_info_size, texts_size

CHANNEL_BYTES = 20
"""What a channel takes in a list beside its name."""

CONNECTION_BYTES = 320
"""What a connection takes in a list beside its user and channels, with the longest names of SDKs."""


async def presence(api: ApiContext, request: PresenceRequest) -> PresenceResult:
    """All of it or error 106: a part of it would look as if the others were gone."""
    members = await api.channels.presence(request.channel, api.namespace(request.channel))
    api.check_size(
        sum(map(client_info_size, members.values())), f"presence of {request.channel!r}", "ask for presence_stats"
    )
    return PresenceResult(presence={client: client_entry(info) for client, info in members.items()})


async def presence_stats(api: ApiContext, request: PresenceStatsRequest) -> PresenceStatsResult:
    stats = await api.channels.presence_stats(request.channel, api.namespace(request.channel))
    return PresenceStatsResult(num_clients=stats.num_clients, num_users=stats.num_users)


async def history(api: ApiContext, request: HistoryRequest) -> HistoryResult:
    """Cut to `api.response_max_size`, and then read on from the last publication. Not cut to
    `client.history_max_publication_limit`: that bounds what clients may ask.
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
    data, b64data = shown(publication.data)
    return PublicationEntry(
        data=data,
        b64data=b64data,
        offset=publication.offset,
        tags=publication.tags or {},
        info=client_entry(publication.info) if publication.info is not None else UNSET,
    )


async def history_remove(api: ApiContext, request: HistoryRemoveRequest) -> Nothing:
    await api.channels.remove_history(request.channel, api.namespace(request.channel))
    return Nothing()


async def channels(api: ApiContext, request: ChannelsRequest) -> ChannelsResult:
    counts = await api.cluster.channels(request.pattern)
    api.check_size(
        texts_size(counts) + len(counts) * CHANNEL_BYTES, "the list", "ask with a pattern for fewer channels"
    )
    return ChannelsResult(channels={name: ChannelEntry(num_clients=count) for name, count in counts.items()})


async def connections(api: ApiContext, request: ConnectionsRequest) -> ConnectionsResult:
    limit = request.limit
    # One more than wanted, to know whether there is one.
    found = await api.cluster.connections(ConnectionsSurvey(request.user, request.channel, limit + 1))
    entries: dict[str, ConnectionEntry] = {}
    size = 0
    for info in found[:limit]:
        size += CONNECTION_BYTES + len(info.user) + texts_size(info.channels)
        if size > api.options.response_max_size and entries:
            api.events.emit(LimitHit(RESPONSE_LIMIT, ""))
            break
        entries[info.client] = _connection_entry(info)
    return ConnectionsResult(connections=entries, truncated=len(found) > len(entries))


def _connection_entry(info: ConnectionInfo) -> ConnectionEntry:
    return ConnectionEntry(**{name: value for name, value in structs.asdict(info).items() if name != "client"})


async def info(api: ApiContext, request: InfoRequest) -> InfoResult:
    return InfoResult(nodes=[NodeEntry(**structs.asdict(node)) for node in await api.cluster.nodes()])


async def rpc(api: ApiContext, request: RpcRequest) -> RpcResult:
    raise CommandError(METHOD_NOT_FOUND, f"no RPC method {request.method!r}: this server has none")
