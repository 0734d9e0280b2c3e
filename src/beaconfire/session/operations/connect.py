"""Connect and what belongs to the connection as a whole: refresh, rpc, send, ping."""

from __future__ import annotations

import math

from msgspec import structs

from beaconfire.base.errors import (
    BAD_PROTOCOL,
    CHANNEL_LIMIT,
    COMMAND_NOT_AVAILABLE,
    CONNECTION_CLOSED,
    CONNECTION_DENIED,
    CONNECTION_EXPIRED,
    CONNECTION_LIMIT,
    EXPIRED,
    INSUFFICIENT_STATE,
    PERMISSION_DENIED,
    UNAUTHORIZED,
    UNKNOWN_CHANNEL,
    CommandError,
    Disconnect,
)
from beaconfire.model.events import LimitHit, SessionConnected
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.requests import (
    ConnectRequest,
    PingRequest,
    RefreshRequest,
    RPCRequest,
    SendRequest,
    SubscribeRequest,
)
from beaconfire.model.results import (
    ConnectResult,
    PingResult,
    RefreshResult,
    RPCResult,
)
from beaconfire.session.operations.strategy import check_strategy_request
from beaconfire.session.operations.subscribe import (
    TTL_MAX_S,
    PreparedSubscription,
    complete,
    enter,
    go_live,
)
from beaconfire.session.reply_budget import ReplyBudget
from beaconfire.session.session import Session, SessionPhase

APP_NAME_LENGTH_MAX = 64
"""How much of what an SDK calls itself, and its version, is kept; the rest is cut off."""


async def connect(session: Session, ref: object, request: ConnectRequest) -> None:
    """Authenticates and makes the server-side subscriptions, section 6 of the reference."""
    if session.phase is not SessionPhase.NEW:
        if session.traits.connect_first:
            raise Disconnect(BAD_PROTOCOL, "connect was sent twice")
        raise CommandError(PERMISSION_DENIED, "handshake must be the first message of a connection")
    result, entrances = await establish(session, request)
    lively = [(entrance, go_live(entrance)) for entrance in entrances]
    session.reply(ref, result)
    for entrance, publications in lively:
        complete(session, entrance, publications)


async def establish(session: Session, request: ConnectRequest) -> tuple[ConnectResult, list[PreparedSubscription]]:
    """Everything of connect but the reply. On an error the session is as good as useless, on a Disconnect it ends."""
    session.phase = SessionPhase.CONNECTING
    try:
        identity = await session.node.policy.connect(request)
        _admit(session, identity)
        entrances = await _enter_all(session, await _server_side(session, identity, request))
    except CommandError as error:
        _refuse(session)
        if error.code is UNAUTHORIZED and session.traits.connect_first:
            raise Disconnect(BAD_PROTOCOL, error.detail) from error
        raise
    except Disconnect:
        raise
    except Exception:
        _refuse(session)  # whoever decides or the engine has failed: nobody has been let in
        raise
    _check_alive(session)
    session.phase = SessionPhase.CONNECTED
    session.app_name, session.app_version = request.name[:APP_NAME_LENGTH_MAX], request.version[:APP_NAME_LENGTH_MAX]
    session.keepalive.connected()
    _watch_expiry(session)
    node = session.node
    node.events.emit(
        SessionConnected(
            client=session.client,
            user=session.user,
            transport=session.transport.name,
            protocol=session.wire.codec.name,
            name=session.app_name,
            version=session.app_version,
        )
    )
    return _connect_result(session, entrances), entrances


def _check_alive(session: Session) -> None:
    if session.has_ended():
        raise Disconnect(CONNECTION_CLOSED, "the connection ended while connecting")


def _refuse(session: Session) -> None:
    """Undoes a connect that failed with an error: a client that must connect first can do nothing more."""
    session.node.registry.remove(session)
    for subscription in list(session.subscriptions.values()):
        if subscription.channel != session.traits.lobby:
            session.leave(subscription)
    session.identity = Identity()
    if not session.has_ended():
        session.phase = SessionPhase.REFUSED if session.traits.connect_first else SessionPhase.NEW


def _admit(session: Session, identity: Identity) -> None:
    """Makes the identity the session's. Raises CommandError 110 or Disconnect 3504."""
    _check_alive(session)
    node, options = session.node, session.node.client_options
    if identity.expire_at_unix_s and identity.expire_at_unix_s <= node.clock.unix_s() and not options.insecure:
        raise CommandError(EXPIRED, "expire_at is in the past")
    if (
        options.user_connection_limit
        and identity.user
        and node.registry.count_user(identity.user) >= options.user_connection_limit
    ):
        node.events.emit(LimitHit("client.user_connection_limit", session.client))
        raise Disconnect(CONNECTION_LIMIT, "the user has client.user_connection_limit connections already")
    session.identity = identity
    node.registry.add(session)


async def _server_side(
    session: Session, identity: Identity, request: ConnectRequest
) -> list[tuple[SubscribeRequest, SubscriptionGrant]]:
    """The server-side subscriptions of a new connection: the token's, the personal one, and what may be asked for."""
    node, options = session.node, session.node.client_options
    grants = dict(identity.channels)
    if options.user_personal_channel and identity.user:
        grants.setdefault(_personal_channel(session, identity.user), SubscriptionGrant())
    asked = [name for name in request.subs if name not in grants and _may_exist(session, name)]
    channels = [channel for channel in (*grants, *asked) if channel not in session.subscriptions]
    # Before anything is decided, or one request could have any number of tokens verified.
    if len(channels) + len(session.subscriptions) > options.channel_limit:
        node.events.emit(LimitHit("client.channel_limit", session.client))
        raise Disconnect(CHANNEL_LIMIT, "more server-side channels than client.channel_limit")
    wishes = []
    started_s = node.clock.now_s()
    for channel in channels:
        started_s = await node.breathe(started_s)
        wish = _wish(channel, request.subs.get(channel, SubscribeRequest()))
        grant = grants[channel] if channel in grants else await _grant(session, identity, wish)
        if grant is not None:
            wishes.append((wish, grant))
    return wishes


def _wish(channel: str, entry: SubscribeRequest) -> SubscribeRequest:
    """What counts of an entry in connect.subs: a token, where the client is, and how it wants to be told. Whoever has a
    position got it in a recoverable subscription, and wants one again.
    """
    return SubscribeRequest(
        channel=channel,
        token=entry.token,
        recover=entry.recover,
        epoch=entry.epoch,
        offset=entry.offset,
        recoverable=entry.recoverable or entry.recover,
        tf=entry.tf,
        conflate=entry.conflate,
    )


def _personal_channel(session: Session, user: str) -> str:
    """The user's own channel. Raises Disconnect 3507 if its name would let others in."""
    node = session.node
    channel = node.namespaces.personal(user, node.client_options.user_personal_channel_namespace)
    listed = node.namespaces.resolve(channel).options.allow_user_limited_channels
    if listed and node.namespaces.allowed_users(channel) != [user]:
        raise Disconnect(
            CONNECTION_DENIED, "the user id holds a symbol of user-limited channels, so others could read it"
        )
    return channel


def _may_exist(session: Session, channel: str) -> bool:
    """Whether a channel that was asked for in connect has a good name. Raises Disconnect 3501 if it can't exist."""
    try:
        session.namespace(channel)
    except CommandError as error:
        if error.code is UNKNOWN_CHANNEL:
            raise Disconnect(BAD_PROTOCOL, error.detail) from error
        return False
    return True


async def _grant(session: Session, identity: Identity, wish: SubscribeRequest) -> SubscriptionGrant | None:
    """Leave to enter a channel that was asked for, None if there is none: then it is left out, as if unasked.

    Raises CommandError where nobody can tell at the moment: who only listens would be without the channel for good.
    """
    node = session.node
    namespace = node.namespaces.resolve(wish.channel)
    try:
        grant = await node.policy.subscribe(identity, session.client, wish, namespace)
    except CommandError as error:
        if error.code.temporary:
            raise
        return None
    is_over = grant.expire_at_unix_s and grant.expire_at_unix_s <= node.clock.unix_s()
    return None if is_over else grant


async def _enter_all(
    session: Session, wishes: list[tuple[SubscribeRequest, SubscriptionGrant]]
) -> list[PreparedSubscription]:
    node = session.node
    entrances = []
    budget = ReplyBudget(node.client_options.reply_size_limit)
    started_s = node.clock.now_s()
    for request, grant in wishes:
        started_s = await node.breathe(started_s)
        try:
            namespace = node.namespaces.resolve(request.channel)
        except CommandError as error:
            raise Disconnect(BAD_PROTOCOL, f"server-side {error.detail}") from error
        check_strategy_request(request, namespace)
        entrances.append(await enter(session, request, namespace, grant, server_side=True, budget=budget))
    return entrances


def _connect_result(session: Session, entrances: list[PreparedSubscription]) -> ConnectResult:
    node, options = session.node, session.node.client_options
    ttl = _lifetime(session, session.identity)
    # Rounded up: zero would mean that there are none, and then the client would not answer them.
    interval_s = math.ceil(options.ping_interval) if session.traits.app_pings else 0
    secret = session.transport.secret
    return ConnectResult(
        client=session.client,
        version=f"Beaconfire {node.options.version}",
        expires=ttl > 0,
        ttl=ttl,
        subs={entrance.subscription.channel: entrance.result for entrance in entrances},
        ping=interval_s,
        pong=interval_s > 0 and not session.traits.unidirectional,
        session=secret,
        node=node.options.uid if secret else "",
        time=int(node.clock.unix_s() * 1000) if options.connect_include_server_time else 0,
    )


def _lifetime(session: Session, identity: Identity) -> int:
    """Whole seconds until the client must refresh; 0 if it need not."""
    if not identity.expire_at_unix_s or not identity.client_refresh or session.node.client_options.insecure:
        return 0
    return max(1, min(int(identity.expire_at_unix_s - session.node.clock.unix_s()), TTL_MAX_S))


def _watch_expiry(session: Session) -> None:
    node, expire_at = session.node, session.identity.expire_at_unix_s
    if not expire_at or node.client_options.insecure:
        session.keepalive.expire_at(float("inf"))
        return
    remaining_s = expire_at - node.clock.unix_s()
    session.keepalive.expire_at(node.clock.now_s() + remaining_s + node.client_options.expired_close_delay)


async def refresh(session: Session, ref: object, request: RefreshRequest) -> None:
    """A later end for a connection that expires, section 8."""
    if not request.token:
        raise Disconnect(BAD_PROTOCOL, "refresh: token must not be empty")
    if not session.identity.client_refresh:
        raise Disconnect(BAD_PROTOCOL, "refresh: this connection does not expire")
    identity = await session.node.policy.refresh(session.identity, request.token)
    _check_alive(session)
    if identity.expire_at_unix_s and identity.expire_at_unix_s <= session.node.clock.unix_s():
        raise Disconnect(CONNECTION_EXPIRED, "expire_at of the new token is in the past")
    if identity.channels.keys() != session.identity.channels.keys():
        raise Disconnect(INSUFFICIENT_STATE, "the new token has other channels: connect again")
    # A token that says nothing about `info` leaves it as it is, as in Centrifugo: many only prolong the connection.
    session.identity = structs.replace(identity, info=identity.info or session.identity.info)
    session.update_info()
    _watch_expiry(session)
    ttl = _lifetime(session, identity)
    session.reply(
        ref,
        RefreshResult(
            client=session.client,
            version=f"Beaconfire {session.node.options.version}",
            expires=ttl > 0,
            ttl=ttl,
        ),
    )


def expire_at(session: Session, when_unix_s: float) -> None:
    """The server moves the end of a session; 0 is never."""
    session.identity = structs.replace(session.identity, expire_at_unix_s=when_unix_s)
    _watch_expiry(session)


async def rpc(session: Session, ref: object, request: RPCRequest) -> None:
    data = await session.node.policy.rpc(session.identity, request.method, request.data)
    session.reply(ref, RPCResult(data))


async def send(session: Session, ref: object, request: SendRequest) -> None:
    """Messages without a reply are for handlers; the configured rules have none."""
    raise Disconnect(COMMAND_NOT_AVAILABLE, "send: no message handler is configured")


async def ping(session: Session, ref: object, request: PingRequest) -> None:
    """Only the plain protocol has it; a native client that sends it broke the protocol (section 5, rule 3)."""
    if session.traits.connect_first:
        raise Disconnect(BAD_PROTOCOL, "ping is not a command of this protocol")
    session.reply(ref, PingResult())
