"""The server-side subscriptions of a new connection: of its token, the personal channel, and those of its request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from beaconfire.base.clock import Clock
from beaconfire.base.errors import (
    BAD_PROTOCOL,
    CHANNEL_LIMIT,
    CONNECTION_DENIED,
    UNKNOWN_CHANNEL,
    CommandError,
    Disconnect,
)
from beaconfire.base.loop import LoopTurns
from beaconfire.channels.namespaces import Namespace, Namespaces
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest
from beaconfire.policy.port import Via
from beaconfire.session.operations.decisions import Decisions
from beaconfire.session.operations.expiry import Expiry
from beaconfire.session.operations.lookup import ChannelLookup
from beaconfire.session.operations.prepare import Preparation, PreparedSubscription
from beaconfire.session.operations.strategy import check_strategy
from beaconfire.session.options import ClientOptions
from beaconfire.session.reply_budget import ReplyBudget
from beaconfire.session.session import Session

SMALL_TOKEN_MAX: Final = 2048
"""Characters of a token with at most `SMALL_CHANNELS_MAX` channels."""

SMALL_REQUEST_MAX: Final = 16
"""Channels of a request whose tokens are verified without a turn of the event loop in between: 1 to 2 ms."""

SMALL_CHANNELS_MAX: Final = 256
"""Channels that are subscribed to without a turn of the event loop in between: some 10 ms."""


class Permitted(NamedTuple):
    """A subscription that is permitted and not made yet."""

    request: SubscriptionRequest
    grant: SubscriptionGrant


class ServerSideSubscriptions:
    """Section 6 of the reference. Both methods yield to the event loop between two channels."""

    def __init__(
        self,
        decisions: Decisions,
        namespaces: Namespaces,
        lookup: ChannelLookup,
        preparation: Preparation,
        expiry: Expiry,
        options: ClientOptions,
        turns: LoopTurns,
        clock: Clock,
        events: EventSink,
    ) -> None:
        self._decisions = decisions
        self._namespaces = namespaces
        self._lookup = lookup
        self._preparation = preparation
        self._expiry = expiry
        self._options = options
        self._turns = turns
        self._clock = clock
        self._events = events

    async def permitted(
        self,
        session: Session,
        identity: Identity,
        request: ConnectionRequest,
        decided: Mapping[str, SubscriptionGrant],
    ) -> list[Permitted]:
        """The subscriptions to make. Channels of the request that the policy refuses are left out.

        `decided` holds the grants of the client's ticket: for their channels the policy is not asked, unless the grant
        has expired or was revoked.

        Raises Disconnect 3505 for more channels than `client.channel_limit`, and CommandError if the policy cannot
        decide at the moment.
        """
        options = self._options
        grants = dict(identity.channels)
        if options.user_personal_channel and identity.user:
            grants.setdefault(self._personal_channel(identity.user), SubscriptionGrant())
        asked = [name for name in request.subscriptions if name not in grants and self._has_good_name(session, name)]
        channels = [channel for channel in (*grants, *asked) if channel not in session.subscriptions]
        # Checked before the policy is asked. Otherwise one request could have any number of tokens verified.
        if len(channels) + len(session.subscriptions) > options.channel_limit:
            self._events.emit(LimitHit("client.channel_limit", session.client))
            raise Disconnect(CHANNEL_LIMIT, "more server-side channels than client.channel_limit")
        permitted = []
        yields = not is_small(len(request.subscriptions), request.token or request.ticket)
        started_s = self._clock.now_s()
        for channel in channels:
            if yields:
                started_s = await self._turns.yield_after_slice(started_s)
            wanted = _server_side_request(channel, request.subscriptions.get(channel))
            grant = decided.get(channel)
            if grant is None or not self._is_valid(session, channel, grant):
                grant = await self._grant(session, wanted, grants.get(channel))
            if grant is not None:
                permitted.append(Permitted(wanted, grant))
        return permitted

    async def prepare(
        self,
        session: Session,
        request: ConnectionRequest,
        permitted: Sequence[Permitted],
        prepared: list[PreparedSubscription],
    ) -> None:
        """Makes the subscriptions, whose publications share one reply, and appends each to `prepared`.

        Raises CommandError and Disconnect.
        """
        # A policy may grant many channels to a small request, which runs in one step.
        yields = len(permitted) > SMALL_CHANNELS_MAX and not self._runs_in_one_step(request)
        budget = ReplyBudget(self._options.reply_size_limit)
        started_s = self._clock.now_s()
        for wanted, grant in permitted:
            if yields:
                started_s = await self._turns.yield_after_slice(started_s)
            namespace = self._namespace(wanted.channel)
            check_strategy(wanted, namespace)
            prepared.append(
                await self._preparation.prepare(session, wanted, namespace, grant, server_side=True, budget=budget)
            )

    def _runs_in_one_step(self, request: ConnectionRequest) -> bool:
        """Whether the connect may not suspend, apart from the engine. See `Operations.connect_may_suspend`."""
        small = is_small(len(request.subscriptions), request.token or request.ticket)
        return small and "connect" not in self._decisions.suspending

    def _personal_channel(self, user: str) -> str:
        """The user's personal channel. Raises Disconnect 3507 if its name would permit other users."""
        channel = self._namespaces.personal(user, self._options.user_personal_channel_namespace)
        user_limited = self._namespaces.resolve(channel).options.allow_user_limited_channels
        if user_limited and self._namespaces.allowed_users(channel) != [user]:
            raise Disconnect(
                CONNECTION_DENIED, "the user id holds a symbol of user-limited channels, so others could read it"
            )
        return channel

    def _has_good_name(self, session: Session, channel: str) -> bool:
        """Whether a channel of connect.subs has a valid name. Raises Disconnect 3501 for an unknown namespace."""
        try:
            self._lookup.namespace(session, channel)
        except CommandError as error:
            if error.code is UNKNOWN_CHANNEL:
                raise Disconnect(BAD_PROTOCOL, error.detail) from error
            return False
        return True

    async def _grant(
        self, session: Session, request: SubscriptionRequest, proposed: SubscriptionGrant | None
    ) -> SubscriptionGrant | None:
        """The permission for a channel, None if the policy refuses it.

        `proposed` is the grant of the token, None for a channel that only the request names. Raises CommandError if the
        policy cannot decide at the moment. If the channel were left out then, a unidirectional client would never be
        subscribed to it.
        """
        namespace = self._namespace(request.channel)
        via = Via.CONNECT if proposed is None else Via.TOKEN
        try:
            grant = await self._decisions.subscribe(session, request, namespace, via, proposed)
        except CommandError as error:
            if error.code.temporary:
                raise
            return None
        return None if proposed is None and self._expiry.is_over(grant.expire_at_unix_s) else grant

    def _is_valid(self, session: Session, channel: str, grant: SubscriptionGrant) -> bool:
        """Whether the grant of a ticket still holds."""
        return not self._expiry.is_over(grant.expire_at_unix_s) and not self._decisions.revokes(session, channel, grant)

    def _namespace(self, channel: str) -> Namespace:
        """Raises Disconnect 3501 for an unknown namespace."""
        try:
            return self._namespaces.resolve(channel)
        except CommandError as error:
            raise Disconnect(BAD_PROTOCOL, f"server-side {error.detail}") from error


def is_small(channels: int, token: str) -> bool:
    """Whether a connect needs no turn of the event loop between two channels: the request names few channels, and a
    token of this size holds at most some hundred."""
    return channels <= SMALL_REQUEST_MAX and len(token) <= SMALL_TOKEN_MAX


def _server_side_request(channel: str, entry: SubscriptionRequest | None) -> SubscriptionRequest:
    """The fields of the request's entry for the channel that count: the token, the position, the filter and conflation.

    A client with a position had a recoverable subscription, so it gets a recoverable one again.
    """
    if entry is None:
        return SubscriptionRequest(channel)
    return SubscriptionRequest(
        channel,
        token=entry.token,
        since=entry.since,
        recoverable=entry.recoverable or entry.since is not None,
        tags_filter=entry.tags_filter,
        conflate=entry.conflate,
    )
