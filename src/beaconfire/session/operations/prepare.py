"""The one way into a channel, for client commands, tokens, the configuration and the server API.

`prepare` does the first three steps of *hold, attach, read, merge* (see `delivery.subscription`), and may suspend.
`enter` does the rest without suspending: merge, reply, and everything that follows the reply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from beaconfire.base.errors import (
    ALREADY_SUBSCRIBED,
    CONNECTION_CLOSED,
    INSUFFICIENT_STATE,
    LIMIT_EXCEEDED,
    PERMISSION_DENIED,
    UNRECOVERABLE_POSITION,
    CommandError,
    Disconnect,
)
from beaconfire.channels.namespaces import Namespace
from beaconfire.channels.service import ChannelService
from beaconfire.delivery.item import Item
from beaconfire.delivery.subscription import Gap, Subscription, SubscriptionOptions, SubscriptionPhase
from beaconfire.engines.port import HistoryPage
from beaconfire.model.events import EventSink, LimitHit, RecoveryFinished
from beaconfire.model.grants import SubscriptionGrant, SubscriptionOverride
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo
from beaconfire.model.requests import SubscriptionRequest
from beaconfire.model.results import SubscriptionStart
from beaconfire.session.membership import Memberships
from beaconfire.session.operations.decisions import Decisions
from beaconfire.session.operations.expiry import Expiry
from beaconfire.session.operations.lookup import ChannelLookup
from beaconfire.session.operations.recover_in_pieces import RecoveryInPieces
from beaconfire.session.operations.strategy import Strategies
from beaconfire.session.options import ClientOptions
from beaconfire.session.recovery import NOT_RECOVERED, Recovery, recover_cache, recover_stream
from beaconfire.session.reply_budget import ReplyBudget
from beaconfire.session.revocations import Revocations
from beaconfire.session.session import Session

REPEATED_READS_MAX: Final = 2
"""How often history is read again for one subscription, because its link was lost during the read. Then the client is
told that publications are missing, and starts again."""


def do_nothing() -> None:
    """The reply of a client that gets none."""


class PreparedSubscription(Struct, frozen=True):
    """A subscription that is held, attached and read.

    `top` is the top of the stream, None if the subscription has no position. If the subscription is behind, `start`
    holds only the first piece of its recovery.
    """

    subscription: Subscription
    start: SubscriptionStart
    top: StreamPosition | None


class Preparation:
    """Subscribes sessions to channels. The caller has decided that the session may subscribe."""

    def __init__(
        self,
        lookup: ChannelLookup,
        decisions: Decisions,
        revocations: Revocations,
        channels: ChannelService,
        memberships: Memberships,
        strategies: Strategies,
        recoveries: RecoveryInPieces,
        expiry: Expiry,
        options: ClientOptions,
        events: EventSink,
    ) -> None:
        self._lookup = lookup
        self._decisions = decisions
        self._revocations = revocations
        self._channels = channels
        self._memberships = memberships
        self._strategies = strategies
        self._recoveries = recoveries
        self._expiry = expiry
        self._options = options
        self._events = events

    def check_limits(self, session: Session, channel: str) -> None:
        """Whether the session may have one more subscription, to this channel. Raises CommandError 105, 106 or 107."""
        self._lookup.check_length(session, channel)
        self._check_not_subscribed(session, channel)
        if len(session.subscriptions) >= self._options.channel_limit:
            self._events.emit(LimitHit("client.channel_limit", session.client))
            raise CommandError(LIMIT_EXCEEDED, "more channels than client.channel_limit")

    async def prepare(
        self,
        session: Session,
        request: SubscriptionRequest,
        namespace: Namespace,
        grant: SubscriptionGrant,
        *,
        server_side: bool = False,
        of_protocol: bool = False,
        budget: ReplyBudget | None = None,
    ) -> PreparedSubscription:
        """Hold, attach, read. Raises CommandError or Disconnect, and then the subscription has ended.

        `of_protocol` as in `SubscriptionOptions`. `budget` belongs to a reply that several subscriptions share.
        Without it the reply is for this one only.
        """
        options = await self._subscription_options(session, request, namespace, grant, server_side, of_protocol)
        _check_open(session)
        self._revocations.check_grant(session.user, request.channel, grant)  # the decisions may have suspended
        self._check_not_subscribed(session, request.channel)
        subscription = Subscription(
            request.channel,
            namespace,
            session,
            options,
            grant,
            ClientInfo(session.user, session.client, session.identity.info, grant.info),
            self._strategies.create(session, request, namespace),
        )
        self._memberships.add(subscription)
        session.subscriptions[request.channel] = subscription
        try:
            await self._memberships.attach(request.channel)
            budget = budget or ReplyBudget(self._options.reply_size_limit)
            start, top = await self._read(session, subscription, request, budget)
            await self._memberships.add_presence(subscription)
            _check_open(session)
            if subscription.phase is SubscriptionPhase.ENDED:
                self._revocations.check_grant(session.user, request.channel, grant)
                raise CommandError(PERMISSION_DENIED, "the subscription was ended while it was made")
        except BaseException:
            session.unsubscribe(subscription)
            raise
        return PreparedSubscription(subscription, start, top)

    def _check_not_subscribed(self, session: Session, channel: str) -> None:
        if channel in session.subscriptions:
            raise CommandError(ALREADY_SUBSCRIBED, f"channel {channel!r}: already subscribed")

    def enter(
        self, session: Session, prepared: Sequence[PreparedSubscription], reply: Callable[[], None] = do_nothing
    ) -> None:
        """Makes the subscriptions live, calls `reply`, sends what was published meanwhile, and announces the joins.

        Raises Disconnect 3010 if publications are missing, and what `reply` raises. Nothing of the channels is sent to
        the client before the reply.
        """
        live: list[tuple[PreparedSubscription, list[Item]]] = []
        try:
            for entered in prepared:
                held = go_live(entered)
                live.append((entered, held))
        except Disconnect:
            for entered, _ in live:
                entered.subscription.end()  # or the end of the session would send what is pending for them
            raise
        reply()
        for entered, held in live:
            self._complete(session, entered.subscription, held)

    def _complete(self, session: Session, subscription: Subscription, held: list[Item]) -> None:
        session.context.hub.deliver_held(subscription, held)
        if session.has_ended():
            return
        self._expiry.watch_subscription(session, subscription)
        self._memberships.complete(subscription)
        if subscription.reached is not None:
            self._recoveries.start(session, subscription)

    async def _subscription_options(
        self,
        session: Session,
        request: SubscriptionRequest,
        namespace: Namespace,
        grant: SubscriptionGrant,
        server_side: bool,
        of_protocol: bool,
    ) -> SubscriptionOptions:
        """The effective options of namespace, grant and request (section 9 of the reference)."""
        if of_protocol:
            return SubscriptionOptions(server_side=server_side, of_protocol=True)
        options, override = namespace.options, grant.override or SubscriptionOverride()
        recoverable = _either(override.force_recovery, options.force_recovery)
        positioned = _either(override.force_positioning, options.force_positioning)
        if (request.recoverable and not recoverable) or (request.positioned and not positioned):
            reads_history = (options.allow_recovery and options.allow_positioning) or (
                await self._decisions.may_read_history(session, request.channel, namespace, True)
            )
            recoverable = recoverable or (request.recoverable and (options.allow_recovery or reads_history))
            positioned = positioned or (request.positioned and (options.allow_positioning or reads_history))
        lasts = not session.traits.per_request
        announces = lasts and _either(override.join_leave, options.join_leave)
        receives = announces and _either(override.force_push_join_leave, options.force_push_join_leave)
        if announces and request.join_leave and not receives:
            receives = await self._decisions.may_see_presence(session, request.channel, namespace, True)
        recoverable = recoverable and namespace.history.enabled
        return SubscriptionOptions(
            positioned=recoverable or (positioned and namespace.history.enabled),
            recoverable=recoverable,
            presence=lasts and _either(override.presence, options.presence),
            announces_join_leave=announces,
            receives_join_leave=receives,
            server_side=server_side,
        )

    async def _read(
        self, session: Session, subscription: Subscription, request: SubscriptionRequest, budget: ReplyBudget
    ) -> tuple[SubscriptionStart, StreamPosition | None]:
        """The result for the reply, and the top of the stream."""
        options, grant, was_recovering = subscription.options, subscription.grant, request.since is not None
        ttl_s = self._expiry.subscription_ttl_s(grant) if grant.client_refresh else 0
        if not options.positioned:
            # A client that asked for a recovery must learn that nothing was recovered.
            start = SubscriptionStart(
                request.channel,
                was_recovering=was_recovering,
                has_patches=subscription.strategy.has_patches,
                ttl_s=ttl_s,
                data=grant.data,
            )
            return start, None
        since = request.since or StreamPosition(0, "")
        wants_latest = subscription.namespace.cache_mode and subscription.namespace.options.auto_cache_recover
        if options.recoverable and (was_recovering or wants_latest):
            recovery, top = await self._recover(session, subscription, since, budget)
            if request.reject_unrecovered and was_recovering and not recovery.recovered:
                raise CommandError(UNRECOVERABLE_POSITION, "history does not reach back to the given position")
        else:
            page = await self._read_page(subscription, 0)
            recovery, top = NOT_RECOVERED, page.position
        publications = recovery.publications
        # With publications: the offset that the client sent, because SDKs move on from there by the offsets of the
        # publications. Without publications (none was missed, or none passed the subscription's filter): the top of
        # the stream, or the end of the first piece if the recovery continues in pieces.
        offset = since.offset if recovery.recovered and publications else (subscription.reached or top).offset
        start = SubscriptionStart(
            request.channel,
            StreamPosition(offset, top.epoch),
            options.recoverable,
            was_recovering,
            recovery.recovered,
            subscription.strategy.encode(subscription.channel, top.epoch, publications),
            subscription.strategy.has_patches,
            ttl_s,
            grant.data,
        )
        return start, top

    async def _recover(
        self, session: Session, subscription: Subscription, since: StreamPosition, budget: ReplyBudget
    ) -> tuple[Recovery, StreamPosition]:
        """The missed publications, and the top of the stream.

        If the reply has no room for all of them, the recovery holds the first piece, and the subscription is behind.
        """
        namespace = subscription.namespace
        limit = self._options.recovery_max_publication_limit
        if namespace.cache_mode:
            page = await self._read_page(subscription, 1, reverse=True)
            recovery = recover_cache(since, page)
        else:
            page = await self._read_page(subscription, limit, since)
            recovery = recover_stream(since, page)
        if not recovery.recovered and len(page.publications) == limit and not namespace.cache_mode:
            self._events.emit(LimitHit("client.recovery_max_publication_limit", session.client))
        missed = recovery.publications
        selected = subscription.strategy.select(missed)
        self._events.emit(RecoveryFinished(subscription.channel, namespace.name, recovery.recovered, len(selected)))
        wanted = selected if subscription.strategy.is_conflated else missed
        piece = budget.take(wanted)
        if len(piece) < len(wanted):
            self._events.emit(LimitHit("client.reply_max_size", session.client))
            # In cache mode only the latest publication is missed, whatever the client's position was. Otherwise the
            # position must be one that the engine has given: not each offset before a publication is one.
            start = missed[0].offset - 1 if namespace.cache_mode else since.offset
            end = piece[-1].offset if piece else start
            subscription.fall_behind(StreamPosition(end, page.position.epoch))
            selected = [publication for publication in selected if publication.offset <= end]
        return Recovery(recovery.recovered, selected), page.position

    async def _read_page(
        self, subscription: Subscription, limit: int, since: StreamPosition | None = None, reverse: bool = False
    ) -> HistoryPage:
        """See `ChannelService.read_for_subscriber`. Reads again if announcements were missed during the read."""
        channel, namespace = subscription.channel, subscription.namespace
        page = await self._channels.read_for_subscriber(channel, namespace, limit, since, reverse)
        for _ in range(REPEATED_READS_MAX):
            if subscription.place(page.position):
                break
            page = await self._channels.read_for_subscriber(channel, namespace, limit, since, reverse)
        return page


def go_live(prepared: PreparedSubscription) -> list[Item]:
    """Merge: makes the subscription live, and returns the held publications to send right after the reply.

    A subscription that is behind stays so until it has caught up, and there are none. Raises Disconnect 3010 if
    publications are missing.
    """
    if prepared.subscription.reached is not None:
        return []
    try:
        return prepared.subscription.go_live(prepared.top)
    except Gap as gap:
        raise Disconnect(INSUFFICIENT_STATE, str(gap)) from gap


def _check_open(session: Session) -> None:
    """Raises Disconnect if the session has ended. A subscription of an ended session would never end."""
    if session.has_ended():
        raise Disconnect(CONNECTION_CLOSED, "the connection ended while subscribing")


def _either(override: bool | None, option: bool) -> bool:
    return option if override is None else override
