"""Entering and leaving channels. There is one way in, for clients, tokens and the server API alike.

`enter` does the first three steps of *hold, attach, read, merge* (see `subscription`), in which the session may be
interrupted; `complete` does the last one together with the reply, in one step without a pause.
"""

from __future__ import annotations

from msgspec import Struct, structs

from beaconfire.base.errors import (
    ALREADY_SUBSCRIBED,
    BAD_PROTOCOL,
    BAD_REQUEST,
    CONNECTION_CLOSED,
    INSUFFICIENT_STATE,
    LIMIT_EXCEEDED,
    PERMISSION_DENIED,
    SUBSCRIPTION_EXPIRED,
    TOKEN_EXPIRED,
    UNRECOVERABLE_POSITION,
    UNSUBSCRIBED_EXPIRED,
    CommandError,
    Disconnect,
)
from beaconfire.channels.namespaces import Namespace
from beaconfire.delivery.subscription import (
    Gap,
    Subscription,
    SubscriptionOptions,
    SubscriptionPhase,
)
from beaconfire.model.events import LimitHit, RecoveryFinished
from beaconfire.model.grants import SubscriptionGrant, SubscriptionOverride
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.requests import SubRefreshRequest, SubscribeRequest, UnsubscribeRequest
from beaconfire.model.results import SubRefreshResult, SubscribeResult, UnsubscribeResult
from beaconfire.session.operations.recover import catch_up_later, watch_position
from beaconfire.session.operations.strategy import (
    check_strategy_request,
    choose_strategy,
    conflates,
    express,
    gets_patches,
    push_held,
    select,
)
from beaconfire.session.recovery import Recovery, recover_cache, recover_stream
from beaconfire.session.reply_budget import ReplyBudget
from beaconfire.session.session import Session

REJECT_UNRECOVERED = 2
"""Bit of `SubscribeRequest.flag`: answer error 112 instead of `recovered: false`."""

TTL_MAX_S = 365 * 86400
"""Lifetimes are told to clients as at most one year, since SDKs make timers of them."""


class PreparedSubscription(Struct, frozen=True):
    """A subscription that is held, attached and read. `top` is None if it does not watch its position.

    It may be behind: then the result holds only the first piece of its recovery.
    """

    subscription: Subscription
    result: SubscribeResult
    top: StreamPosition | None


async def subscribe(session: Session, ref: object, request: SubscribeRequest) -> None:
    channel = request.channel
    if not channel:
        raise Disconnect(BAD_PROTOCOL, "subscribe: channel must not be empty")
    check_room(session, channel)
    namespace = session.namespace(channel)
    _check_request(request, namespace)
    if session.node.namespaces.is_private(channel) and not request.token:
        raise CommandError(PERMISSION_DENIED, f"channel {channel!r} is private: send a subscription token")
    grant = await session.node.policy.subscribe(session.identity, session.client, request, namespace)
    if grant.expire_at_unix_s and grant.expire_at_unix_s <= session.node.clock.unix_s():
        raise CommandError(TOKEN_EXPIRED, "the subscription's expiry is in the past")
    check_room(session, channel)  # again, because deciding may have taken its time
    entrance = await enter(session, request, namespace, grant, server_side=False)
    publications = go_live(entrance)
    session.reply(ref, entrance.result)
    complete(session, entrance, publications)


def check_room(session: Session, channel: str) -> None:
    """Whether the session may have one more channel of this name at all. Raises CommandError 105, 106 or 107."""
    node = session.node
    session.check_length(channel)
    if channel in session.subscriptions:
        raise CommandError(ALREADY_SUBSCRIBED, f"channel {channel!r}: already subscribed")
    if len(session.subscriptions) >= node.client_options.channel_limit:
        node.events.emit(LimitHit("client.channel_limit", session.client))
        raise CommandError(LIMIT_EXCEEDED, "more channels than client.channel_limit")


def _check_request(request: SubscribeRequest, namespace: Namespace) -> None:
    if request.type != 0:
        raise CommandError(PERMISSION_DENIED, f"type {request.type}: only stream subscriptions (0) exist")
    check_strategy_request(request, namespace)


async def enter(
    session: Session,
    request: SubscribeRequest,
    namespace: Namespace,
    grant: SubscriptionGrant,
    server_side: bool,
    budget: ReplyBudget | None = None,
) -> PreparedSubscription:
    """Hold, attach, read. On any failure the subscription is gone again. Raises CommandError or Disconnect.

    `budget` is that of a reply which several subscriptions share; without it the reply is for this one only.
    """
    node = session.node
    _check_alive(session)
    subscription = Subscription(
        request.channel,
        namespace,
        session,
        _subscription_options(session, request, namespace, grant, server_side),
        grant,
        ClientInfo(session.user, session.client, session.identity.info, grant.info),
        choose_strategy(session, request, namespace),
    )
    node.hub.add(subscription)
    session.subscriptions[request.channel] = subscription
    try:
        await node.attachments.attach(request.channel)
        budget = budget or ReplyBudget(node.client_options.reply_size_limit)
        result, top = await _read(session, subscription, request, budget)
        await node.touch_presence(subscription)
        _check_alive(session)
        if subscription.phase is SubscriptionPhase.ENDED:
            raise CommandError(PERMISSION_DENIED, "the subscription was ended while it was made")
    except BaseException:
        session.leave(subscription)
        raise
    return PreparedSubscription(subscription, result, top)


def _check_alive(session: Session) -> None:
    """Nothing may be entered after the end: nobody would ever leave it."""
    if session.has_ended():
        raise Disconnect(CONNECTION_CLOSED, "the connection ended while subscribing")


def _subscription_options(
    session: Session, request: SubscribeRequest, namespace: Namespace, grant: SubscriptionGrant, server_side: bool
) -> SubscriptionOptions:
    """What namespace, token and request come to together (section 9, effective options)."""
    options, access, user = namespace.options, session.node.access, session.user
    override = grant.override or SubscriptionOverride()
    reads_history = access.may_read_history(user, True, namespace)
    recoverable = _either(override.force_recovery, options.force_recovery) or (
        request.recoverable and (options.allow_recovery or reads_history)
    )
    positioned = _either(override.force_positioning, options.force_positioning) or (
        request.positioned and (options.allow_positioning or reads_history)
    )
    announces_join_leave = _either(override.join_leave, options.join_leave)
    recoverable = recoverable and namespace.history.enabled
    stays = not session.traits.per_request
    return SubscriptionOptions(
        positioned=recoverable or (positioned and namespace.history.enabled),
        recoverable=recoverable,
        presence=stays and _either(override.presence, options.presence),
        announces_join_leave=stays and announces_join_leave,
        receives_join_leave=stays
        and announces_join_leave
        and (
            _either(override.force_push_join_leave, options.force_push_join_leave)
            or (request.join_leave and access.may_see_presence(user, True, namespace))
        ),
        server_side=server_side,
    )


def _either(override: bool | None, option: bool) -> bool:
    return option if override is None else override


async def _read(
    session: Session, subscription: Subscription, request: SubscribeRequest, budget: ReplyBudget
) -> tuple[SubscribeResult, StreamPosition | None]:
    """The reply as far as history decides it, and the top of the stream."""
    options, grant = subscription.options, subscription.grant
    ttl = lifetime(session, grant) if grant.client_refresh else 0
    if not options.positioned:
        # Whoever asked what it missed hears that nobody knows.
        result = SubscribeResult(
            expires=ttl > 0,
            ttl=ttl,
            data=grant.data,
            was_recovering=request.recover,
            delta=gets_patches(subscription),
        )
        return result, None
    recovery: Recovery | None = None
    since = StreamPosition(request.offset, request.epoch)
    wants_latest = subscription.namespace.cache_mode and subscription.namespace.options.auto_cache_recover
    if options.recoverable and (request.recover or wants_latest):
        recovery, top = await _recover(session, subscription, since, budget)
        if request.recover and not recovery.recovered and request.flag & REJECT_UNRECOVERED:
            raise CommandError(UNRECOVERABLE_POSITION, "history does not reach back to the given position")
    else:
        page = await session.node.history(subscription.channel, subscription.namespace, 0)
        top = page.position
    recovered = recovery is not None and recovery.recovered
    publications = recovery.publications if recovery is not None else ()
    return (
        SubscribeResult(
            expires=ttl > 0,
            ttl=ttl,
            recoverable=options.recoverable,
            epoch=top.epoch,
            publications=express(session, subscription, top.epoch, publications),
            recovered=recovered,
            # The SDK moves on from the publications themselves, so it gets back the offset it came with. If there are
            # none, because nothing was missed or a filter passed nothing, it stands at the top, or as far as the
            # recovery has come.
            offset=since.offset if recovered and publications else (subscription.reached or top).offset,
            positioned=True,
            data=grant.data,
            was_recovering=request.recover,
            delta=gets_patches(subscription),
        ),
        top,
    )


async def _recover(
    session: Session, subscription: Subscription, since: StreamPosition, budget: ReplyBudget
) -> tuple[Recovery, StreamPosition]:
    """What was missed, and the top of the stream. If not all of it fits into the reply, the subscription is behind."""
    node, namespace = session.node, subscription.namespace
    limit = node.client_options.recovery_max_publication_limit
    if namespace.cache_mode:
        page = await node.history(subscription.channel, namespace, 1, reverse=True)
        recovery = recover_cache(since, page)
    else:
        page = await node.history(subscription.channel, namespace, limit, since)
        recovery = recover_stream(since, page)
    if not recovery.recovered and len(page.publications) == limit and not namespace.cache_mode:
        node.events.emit(LimitHit("client.recovery_max_publication_limit", session.client))
    missed = recovery.publications
    publications = select(session, subscription, missed)
    node.events.emit(RecoveryFinished(subscription.channel, namespace.name, recovery.recovered, len(publications)))
    wanted = publications if conflates(subscription) else missed
    piece = budget.take(wanted)
    if len(piece) < len(wanted):
        node.events.emit(LimitHit("client.reply_max_size", session.client))
        # Not `since`: of a cache only the latest is missed, wherever the client was.
        end = piece[-1].offset if piece else missed[0].offset - 1
        subscription.fall_behind(StreamPosition(end, page.position.epoch))
        publications = [publication for publication in publications if publication.offset <= end]
    return Recovery(recovery.recovered, publications), page.position


def go_live(entrance: PreparedSubscription) -> list[Publication]:
    """Merge: what arrived meanwhile and goes out right after the reply. Raises Disconnect 3010 for a hole.

    Nothing, if the subscription is behind: then it goes live when it has caught up.
    """
    if entrance.subscription.reached is not None:
        return []
    try:
        return entrance.subscription.go_live(entrance.top)
    except Gap as gap:
        raise Disconnect(INSUFFICIENT_STATE, str(gap)) from gap


def complete(session: Session, entrance: PreparedSubscription, publications: list[Publication]) -> None:
    """After the reply, without a pause in between: what was held goes out, and the others hear of the new one."""
    subscription = entrance.subscription
    push_held(session, subscription, publications)
    if session.has_ended():
        return
    if subscription.grant.expire_at_unix_s:
        session.keepalive.upkeep_by(expiry_s(session, subscription))
    session.node.welcome(subscription)
    if subscription.reached is not None:
        catch_up_later(session, subscription)
    else:
        watch_position(session, subscription)


def expiry_s(session: Session, subscription: Subscription) -> float:
    """The monotonic time at which a subscription with an expiry is ended: some grace after it."""
    clock = session.node.clock
    remaining_s = subscription.grant.expire_at_unix_s - clock.unix_s()
    return clock.now_s() + remaining_s + session.node.client_options.expired_sub_close_delay


def lifetime(session: Session, grant: SubscriptionGrant) -> int:
    """Whole seconds until the grant expires, for the client; 0 if it does not."""
    if not grant.expire_at_unix_s:
        return 0
    return max(1, min(int(grant.expire_at_unix_s - session.node.clock.unix_s()), TTL_MAX_S))


async def unsubscribe(session: Session, ref: object, request: UnsubscribeRequest) -> None:
    if not request.channel:
        raise Disconnect(BAD_PROTOCOL, "unsubscribe: channel must not be empty")
    subscription = session.subscriptions.get(request.channel)
    if subscription is not None:
        session.leave(subscription)
    session.reply(ref, UnsubscribeResult())


async def sub_refresh(session: Session, ref: object, request: SubRefreshRequest) -> None:
    if not request.channel:
        # An error and not a disconnect, because centrifuge-python 0.5 leaves the channel out: its subscription then
        # expires (2501) and is made again with a new token and recovery, and its connection lives on.
        raise CommandError(BAD_REQUEST, "sub_refresh: channel must not be empty")
    subscription = session.subscriptions.get(request.channel)
    if subscription is None:
        raise CommandError(PERMISSION_DENIED, f"channel {request.channel!r}: not subscribed")
    if not subscription.grant.client_refresh:
        raise Disconnect(BAD_PROTOCOL, f"channel {request.channel!r}: the subscription does not expire")
    if not request.token:
        raise CommandError(BAD_REQUEST, "sub_refresh: token must not be empty")
    grant = await session.node.policy.sub_refresh(session.identity, session.client, request.channel, request.token)
    if grant.expire_at_unix_s and grant.expire_at_unix_s <= session.node.clock.unix_s():
        raise Disconnect(SUBSCRIPTION_EXPIRED, "the subscription's new expiry is in the past")
    if session.subscriptions.get(request.channel) is not subscription:
        raise CommandError(PERMISSION_DENIED, f"channel {request.channel!r}: not subscribed any more")
    subscription.grant = structs.replace(grant, info=grant.info or subscription.grant.info)  # as in `refresh`
    session.update_info()
    if grant.expire_at_unix_s:
        session.keepalive.upkeep_by(expiry_s(session, subscription))
    ttl = lifetime(session, grant)
    session.reply(ref, SubRefreshResult(expires=ttl > 0, ttl=ttl))


def expire(session: Session, subscription: Subscription) -> None:
    """The subscription's time is up, grace included."""
    if subscription.options.server_side:
        session.end(SUBSCRIPTION_EXPIRED, f"the subscription to {subscription.channel!r} was not refreshed in time")
    else:
        session.expel(subscription, UNSUBSCRIBED_EXPIRED)
