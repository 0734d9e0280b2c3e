"""The commands presence, presence_stats and history."""

from __future__ import annotations

from beaconfire.base.errors import (
    BAD_PROTOCOL,
    LIMIT_EXCEEDED,
    PERMISSION_DENIED,
    CommandError,
    Disconnect,
)
from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespace
from beaconfire.channels.service import ChannelService, check_history, check_presence
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.model.position import StreamPosition
from beaconfire.model.requests import HistoryRequest, PresenceRequest, PresenceStatsRequest
from beaconfire.model.results import HistoryResult, PresenceResult, PresenceStatsResult
from beaconfire.session.operations.lookup import ChannelLookup
from beaconfire.session.options import ClientOptions
from beaconfire.session.reply_budget import ReplyBudget, client_info_size
from beaconfire.session.session import Session


class ReadHandler:
    """Reads channels for clients that the namespace permits to."""

    def __init__(
        self,
        access: Access,
        lookup: ChannelLookup,
        channels: ChannelService,
        options: ClientOptions,
        events: EventSink,
    ) -> None:
        self._access = access
        self._lookup = lookup
        self._channels = channels
        self._options = options
        self._events = events

    async def presence(self, session: Session, ref: object, request: PresenceRequest) -> None:
        """All present clients, or error 106: in a part of them, the other clients would look absent."""
        namespace = self._check_presence(session, request.channel)
        members = await self._channels.presence(request.channel, namespace)
        if sum(map(client_info_size, members.values())) > self._options.reply_size_limit:
            self._events.emit(LimitHit("client.reply_max_size", session.client))
            raise CommandError(
                LIMIT_EXCEEDED,
                f"presence of {request.channel!r} is larger than client.reply_max_size: ask for presence_stats",
            )
        session.reply(ref, PresenceResult(members))

    async def presence_stats(self, session: Session, ref: object, request: PresenceStatsRequest) -> None:
        namespace = self._check_presence(session, request.channel)
        stats = await self._channels.presence_stats(request.channel, namespace)
        session.reply(ref, PresenceStatsResult(stats.num_clients, stats.num_users))

    def _check_presence(self, session: Session, channel: str) -> Namespace:
        if not channel:
            raise Disconnect(BAD_PROTOCOL, "presence: channel must not be empty")
        namespace = self._lookup.namespace(session, channel)
        check_presence(channel, namespace)
        if not self._access.may_see_presence(session.user, channel in session.subscriptions, namespace):
            raise CommandError(PERMISSION_DENIED, f"presence of {channel!r} is not permitted to this client")
        return namespace

    async def history(self, session: Session, ref: object, request: HistoryRequest) -> None:
        """One page of history. If a limit shortens the page, the client continues after its last publication."""
        channel = request.channel
        if not channel:
            raise Disconnect(BAD_PROTOCOL, "history: channel must not be empty")
        namespace = self._lookup.namespace(session, channel)
        check_history(channel, namespace)
        if not self._access.may_read_history(session.user, channel in session.subscriptions, namespace):
            raise CommandError(PERMISSION_DENIED, f"history of {channel!r} is not permitted to this client")
        limit_max = self._options.history_max_publication_limit
        limit = request.limit
        if limit > limit_max:
            self._events.emit(LimitHit("client.history_max_publication_limit", session.client))
        if limit < 0 or limit > limit_max:  # a negative limit asks for as many as possible, and exceeds no limit
            limit = limit_max
        since = StreamPosition(request.since.offset, request.since.epoch) if request.since is not None else None
        page = await self._channels.page(channel, namespace, limit, since, request.reverse)
        publications = ReplyBudget(self._options.reply_size_limit).take(page.publications)
        if len(publications) < len(page.publications):
            self._events.emit(LimitHit("client.reply_max_size", session.client))
        session.reply(ref, HistoryResult(list(publications), page.position.epoch, page.position.offset))
