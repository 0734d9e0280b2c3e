"""The one way into a channel, for client commands, tokens, the configuration and the server API.

`prepare` does the first three steps of *hold, attach, read, merge* (see `delivery.subscription`), and may suspend.
`go_live` does the last step. The caller then sends the reply and calls `complete`, without suspending in between.
"""

from __future__ import annotations

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
from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespace
from beaconfire.channels.service import ChannelService
from beaconfire.delivery.item import Item
from beaconfire.delivery.subscription import Gap, Subscription, SubscriptionOptions, SubscriptionPhase
from beaconfire.model.events import EventSink, LimitHit, RecoveryFinished
from beaconfire.model.grants import SubscriptionGrant, SubscriptionOverride
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo
from beaconfire.model.requests import SubscribeRequest
from beaconfire.model.results import SubscribeResult
from beaconfire.session.membership import Memberships
from beaconfire.session.operations.expiry import Expiry
from beaconfire.session.operations.lookup import ChannelLookup
from beaconfire.session.operations.recover_in_pieces import RecoveryInPieces
from beaconfire.session.operations.strategy import Strategies
from beaconfire.session.operations.upkeep import Upkeep
from beaconfire.session.options import ClientOptions
from beaconfire.session.recovery import Recovery, recover_cache, recover_stream
from beaconfire.session.reply_budget import ReplyBudget
from beaconfire.session.session import Session

REJECT_UNRECOVERED = 2
"""The bit of `SubscribeRequest.flag` that asks for error 112 instead of `recovered: false`."""


class PreparedSubscription(Struct, frozen=True):
    """A subscription that is held, attached and read.

    `top` is the top of the stream, None if the subscription has no position. If the subscription is behind, the result
    holds only the first piece of its recovery.
    """

    subscription: Subscription
    result: SubscribeResult
    top: StreamPosition | None


class Preparation:
    """Subscribes sessions to channels. The caller has decided that the session may subscribe."""

    def __init__(
        self,
        lookup: ChannelLookup,
        access: Access,
        channels: ChannelService,
        memberships: Memberships,
        strategies: Strategies,
        recoveries: RecoveryInPieces,
        expiry: Expiry,
        upkeep: Upkeep,
        options: ClientOptions,
        events: EventSink,
    ) -> None:
        self._lookup = lookup
        self._access = access
        self._channels = channels
        self._memberships = memberships
        self._strategies = strategies
        self._recoveries = recoveries
        self._expiry = expiry
        self._upkeep = upkeep
        self._options = options
        self._events = events

    def check_limits(self, session: Session, channel: str) -> None:
        """Whether the session may have one more subscription, to this channel. Raises CommandError 105, 106 or 107."""
        self._lookup.check_length(session, channel)
        if channel in session.subscriptions:
            raise CommandError(ALREADY_SUBSCRIBED, f"channel {channel!r}: already subscribed")
        if len(session.subscriptions) >= self._options.channel_limit:
            self._events.emit(LimitHit("client.channel_limit", session.client))
            raise CommandError(LIMIT_EXCEEDED, "more channels than client.channel_limit")

    async def prepare(
        self,
        session: Session,
        request: SubscribeRequest,
        namespace: Namespace,
        grant: SubscriptionGrant,
        server_side: bool,
        budget: ReplyBudget | None = None,
    ) -> PreparedSubscription:
        """Hold, attach, read. Raises CommandError or Disconnect, and then the subscription has ended.

        `budget` belongs to a reply that several subscriptions share. Without it the reply is for this one only.
        """
        _check_open(session)
        subscription = Subscription(
            request.channel,
            namespace,
            session,
            self._subscription_options(session, request, namespace, grant, server_side),
            grant,
            ClientInfo(session.user, session.client, session.identity.info, grant.info),
            self._strategies.create(session, request, namespace),
        )
        self._memberships.add(subscription)
        session.subscriptions[request.channel] = subscription
        try:
            await self._memberships.attach(request.channel)
            budget = budget or ReplyBudget(self._options.reply_size_limit)
            result, top = await self._read(session, subscription, request, budget)
            await self._memberships.update_presence(subscription)
            _check_open(session)
            if subscription.phase is SubscriptionPhase.ENDED:
                raise CommandError(PERMISSION_DENIED, "the subscription was ended while it was made")
        except BaseException:
            session.unsubscribe(subscription)
            raise
        return PreparedSubscription(subscription, result, top)

    def complete(self, session: Session, prepared: PreparedSubscription, held: list[Item]) -> None:
        """Sends the publications that `go_live` returned, and announces the join. Call right after the reply."""
        subscription = prepared.subscription
        session.context.hub.deliver_held(subscription, held)
        if session.has_ended():
            return
        self._expiry.watch_subscription(session, subscription)
        self._memberships.complete(subscription)
        if subscription.reached is not None:
            self._recoveries.start(session, subscription)
        else:
            self._upkeep.watch_position(session, subscription)

    def _subscription_options(
        self,
        session: Session,
        request: SubscribeRequest,
        namespace: Namespace,
        grant: SubscriptionGrant,
        server_side: bool,
    ) -> SubscriptionOptions:
        """The effective options of namespace, grant and request (section 9 of the reference)."""
        options, access, user = namespace.options, self._access, session.user
        override = grant.override or SubscriptionOverride()
        reads_history = access.may_read_history(user, True, namespace)
        recoverable = _either(override.force_recovery, options.force_recovery) or (
            request.recoverable and (options.allow_recovery or reads_history)
        )
        positioned = _either(override.force_positioning, options.force_positioning) or (
            request.positioned and (options.allow_positioning or reads_history)
        )
        recoverable = recoverable and namespace.history.enabled
        lasts = not session.traits.per_request
        announces = lasts and _either(override.join_leave, options.join_leave)
        return SubscriptionOptions(
            positioned=recoverable or (positioned and namespace.history.enabled),
            recoverable=recoverable,
            presence=lasts and _either(override.presence, options.presence),
            announces_join_leave=announces,
            receives_join_leave=announces
            and (
                _either(override.force_push_join_leave, options.force_push_join_leave)
                or (request.join_leave and access.may_see_presence(user, True, namespace))
            ),
            server_side=server_side,
        )

    async def _read(
        self, session: Session, subscription: Subscription, request: SubscribeRequest, budget: ReplyBudget
    ) -> tuple[SubscribeResult, StreamPosition | None]:
        """The result for the reply, and the top of the stream."""
        options, grant = subscription.options, subscription.grant
        ttl_s = self._expiry.subscription_ttl_s(grant) if grant.client_refresh else 0
        if not options.positioned:
            # A client that asked for a recovery must learn that nothing was recovered.
            result = SubscribeResult(
                expires=ttl_s > 0,
                ttl=ttl_s,
                data=grant.data,
                was_recovering=request.recover,
                delta=subscription.strategy.has_patches,
            )
            return result, None
        recovery: Recovery | None = None
        since = StreamPosition(request.offset, request.epoch)
        wants_latest = subscription.namespace.cache_mode and subscription.namespace.options.auto_cache_recover
        if options.recoverable and (request.recover or wants_latest):
            recovery, top = await self._recover(session, subscription, since, budget)
            if request.recover and not recovery.recovered and request.flag & REJECT_UNRECOVERED:
                raise CommandError(UNRECOVERABLE_POSITION, "history does not reach back to the given position")
        else:
            page = await self._channels.history(subscription.channel, subscription.namespace, 0)
            top = page.position
        recovered = recovery is not None and recovery.recovered
        publications = recovery.publications if recovery is not None else ()
        return (
            SubscribeResult(
                expires=ttl_s > 0,
                ttl=ttl_s,
                recoverable=options.recoverable,
                epoch=top.epoch,
                publications=list(subscription.strategy.encode(subscription.channel, top.epoch, publications)),
                recovered=recovered,
                # With publications: the offset that the client sent, because SDKs move on from there by the offsets of
                # the publications. Without publications (none was missed, or none passed the subscription's filter):
                # the top of the stream, or the end of the first piece if the recovery continues in pieces.
                offset=since.offset if recovered and publications else (subscription.reached or top).offset,
                positioned=True,
                data=grant.data,
                was_recovering=request.recover,
                delta=subscription.strategy.has_patches,
            ),
            top,
        )

    async def _recover(
        self, session: Session, subscription: Subscription, since: StreamPosition, budget: ReplyBudget
    ) -> tuple[Recovery, StreamPosition]:
        """The missed publications, and the top of the stream.

        If the reply has no room for all of them, the recovery holds the first piece, and the subscription is behind.
        """
        namespace = subscription.namespace
        limit = self._options.recovery_max_publication_limit
        if namespace.cache_mode:
            page = await self._channels.history(subscription.channel, namespace, 1, reverse=True)
            recovery = recover_cache(since, page)
        else:
            page = await self._channels.history(subscription.channel, namespace, limit, since)
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
            # Not `since`: in cache mode only the latest publication is missed, whatever the client's position was.
            end = piece[-1].offset if piece else missed[0].offset - 1
            subscription.fall_behind(StreamPosition(end, page.position.epoch))
            selected = [publication for publication in selected if publication.offset <= end]
        return Recovery(recovery.recovered, selected), page.position


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
