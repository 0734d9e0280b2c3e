"""Questions about a channel: presence and history."""

from __future__ import annotations

from beaconfire.base.errors import (
    BAD_PROTOCOL,
    LIMIT_EXCEEDED,
    NOT_AVAILABLE,
    PERMISSION_DENIED,
    CommandError,
    Disconnect,
)
from beaconfire.channels.namespaces import Namespace
from beaconfire.model.events import LimitHit
from beaconfire.model.position import StreamPosition
from beaconfire.model.requests import HistoryRequest, PresenceRequest, PresenceStatsRequest
from beaconfire.model.results import HistoryResult, PresenceResult, PresenceStatsResult
from beaconfire.session.reply_budget import ReplyBudget, client_info_size
from beaconfire.session.session import Session


async def presence(session: Session, ref: object, request: PresenceRequest) -> None:
    """All of it or error 106: who reads a part of it would take the others for gone."""
    namespace = _presence_namespace(session, request.channel)
    node = session.node
    members = await node.presence(request.channel, namespace)
    if sum(map(client_info_size, members.values())) > node.client_options.reply_size_limit:
        node.events.emit(LimitHit("client.reply_max_size", session.client))
        raise CommandError(
            LIMIT_EXCEEDED,
            f"presence of {request.channel!r} is larger than client.reply_max_size: ask for presence_stats",
        )
    session.reply(ref, PresenceResult(members))


async def presence_stats(session: Session, ref: object, request: PresenceStatsRequest) -> None:
    namespace = _presence_namespace(session, request.channel)
    stats = await session.node.presence_stats(request.channel, namespace)
    session.reply(ref, PresenceStatsResult(stats.num_clients, stats.num_users))


def _presence_namespace(session: Session, channel: str) -> Namespace:
    if not channel:
        raise Disconnect(BAD_PROTOCOL, "presence: channel must not be empty")
    namespace = session.namespace(channel)
    if not namespace.options.presence:
        raise CommandError(NOT_AVAILABLE, f"presence is off in {channel!r}: set presence")
    if not session.node.access.may_see_presence(session.user, channel in session.subscriptions, namespace):
        raise CommandError(PERMISSION_DENIED, f"presence of {channel!r} is not permitted to this client")
    return namespace


async def history(session: Session, ref: object, request: HistoryRequest) -> None:
    """A page that is cut to a limit is as any other: the client goes on from its last publication."""
    channel, node = request.channel, session.node
    if not channel:
        raise Disconnect(BAD_PROTOCOL, "history: channel must not be empty")
    namespace = session.namespace(channel)
    if not namespace.history.enabled:
        raise CommandError(NOT_AVAILABLE, f"history is off in {channel!r}: set history_size and history_ttl")
    if not node.access.may_read_history(session.user, channel in session.subscriptions, namespace):
        raise CommandError(PERMISSION_DENIED, f"history of {channel!r} is not permitted to this client")
    limit_max = node.client_options.history_max_publication_limit
    limit = request.limit
    if limit > limit_max:
        node.events.emit(LimitHit("client.history_max_publication_limit", session.client))
    if limit < 0 or limit > limit_max:  # below zero is "as many as there may be" and hits nothing
        limit = limit_max
    since = StreamPosition(request.since.offset, request.since.epoch) if request.since is not None else None
    page = await node.page(channel, namespace, limit, since, request.reverse)
    publications = ReplyBudget(node.client_options.reply_size_limit).take(page.publications)
    if len(publications) < len(page.publications):
        node.events.emit(LimitHit("client.reply_max_size", session.client))
    session.reply(ref, HistoryResult(list(publications), page.position.epoch, page.position.offset))
