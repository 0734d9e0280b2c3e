"""Reading channels: presence, presence statistics and history."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from beaconfire.base.errors import LIMIT_EXCEEDED, PERMISSION_DENIED, CommandError
from beaconfire.channels.namespaces import Namespace
from beaconfire.channels.service import ChannelService, check_history, check_presence
from beaconfire.engines.port import HistoryPage, PresenceStats
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo
from beaconfire.session.operations.decisions import Decisions
from beaconfire.session.operations.lookup import ChannelLookup, check_connected
from beaconfire.session.options import ClientOptions
from beaconfire.session.reply_budget import ReplyBudget, client_info_size
from beaconfire.session.session import Session


class Reading:
    """Reads channels for clients that a policy permits to. Every method raises CommandError and Disconnect."""

    def __init__(
        self,
        decisions: Decisions,
        lookup: ChannelLookup,
        channels: ChannelService,
        options: ClientOptions,
        events: EventSink,
    ) -> None:
        self._decisions = decisions
        self._lookup = lookup
        self._channels = channels
        self._options = options
        self._events = events

    async def presence(self, session: Session, channel: str) -> Mapping[str, ClientInfo]:
        """All present clients, or error 106: in a part of them, the other clients would look absent."""
        namespace = await self._check_presence(session, channel)
        members = await self._channels.presence(channel, namespace)
        if sum(map(client_info_size, members.values())) > self._options.reply_size_limit:
            self._events.emit(LimitHit("client.reply_max_size", session.client))
            raise CommandError(
                LIMIT_EXCEEDED,
                f"presence of {channel!r} is larger than client.reply_max_size: ask for presence_stats",
            )
        return members

    async def presence_stats(self, session: Session, channel: str) -> PresenceStats:
        namespace = await self._check_presence(session, channel)
        return await self._channels.presence_stats(channel, namespace)

    async def _check_presence(self, session: Session, channel: str) -> Namespace:
        check_connected(session)
        namespace = self._lookup.namespace(session, channel)
        check_presence(channel, namespace)
        subscribed = channel in session.subscriptions
        if not await self._decisions.may_see_presence(session, channel, namespace, subscribed):
            raise CommandError(PERMISSION_DENIED, f"presence of {channel!r} is not permitted to this client")
        return namespace

    async def history(
        self, session: Session, channel: str, limit: int, since: StreamPosition | None = None, reverse: bool = False
    ) -> HistoryPage:
        """One page of history. If a limit shortens the page, the client continues after its last publication.

        `limit` 0 asks only for the position, and a negative limit for as many publications as allowed. `since` is
        exclusive. With `reverse` the newest publication is first, and `since` selects earlier ones.
        """
        check_connected(session)
        namespace = self._lookup.namespace(session, channel)
        check_history(channel, namespace)
        subscribed = channel in session.subscriptions
        if not await self._decisions.may_read_history(session, channel, namespace, subscribed):
            raise CommandError(PERMISSION_DENIED, f"history of {channel!r} is not permitted to this client")
        limit_max = self._options.history_max_publication_limit
        if limit > limit_max:
            self._events.emit(LimitHit("client.history_max_publication_limit", session.client))
        if limit < 0 or limit > limit_max:  # a negative limit asks for as many as possible, and exceeds no limit
            limit = limit_max
        page = await self._channels.page(channel, namespace, limit, since, reverse)
        publications = ReplyBudget(self._options.reply_size_limit).take(page.publications)
        if len(publications) < len(page.publications):
            self._events.emit(LimitHit("client.reply_max_size", session.client))
            page = replace(page, publications=publications)
        return page
