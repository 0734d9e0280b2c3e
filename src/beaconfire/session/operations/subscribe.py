"""The commands subscribe and unsubscribe."""

from __future__ import annotations

from beaconfire.base.errors import BAD_PROTOCOL, PERMISSION_DENIED, TOKEN_EXPIRED, CommandError, Disconnect
from beaconfire.channels.namespaces import Namespaces
from beaconfire.model.requests import SubscribeRequest, UnsubscribeRequest
from beaconfire.model.results import UnsubscribeResult
from beaconfire.policy.port import Policy
from beaconfire.session.operations.expiry import Expiry
from beaconfire.session.operations.lookup import ChannelLookup
from beaconfire.session.operations.prepare import Preparation, go_live
from beaconfire.session.operations.strategy import check_strategy
from beaconfire.session.session import Session


class SubscribeHandler:
    """Section 9 of the reference."""

    def __init__(
        self,
        policy: Policy,
        namespaces: Namespaces,
        lookup: ChannelLookup,
        preparation: Preparation,
        expiry: Expiry,
    ) -> None:
        self._policy = policy
        self._namespaces = namespaces
        self._lookup = lookup
        self._preparation = preparation
        self._expiry = expiry

    async def subscribe(self, session: Session, ref: object, request: SubscribeRequest) -> None:
        channel = request.channel
        if not channel:
            raise Disconnect(BAD_PROTOCOL, "subscribe: channel must not be empty")
        self._preparation.check_limits(session, channel)
        namespace = self._lookup.namespace(session, channel)
        if request.type != 0:
            raise CommandError(PERMISSION_DENIED, f"type {request.type}: only stream subscriptions (0) exist")
        check_strategy(request, namespace)
        if self._namespaces.is_private(channel) and not request.token:
            raise CommandError(PERMISSION_DENIED, f"channel {channel!r} is private: send a subscription token")
        grant = await self._policy.subscribe(session.identity, session.client, request, namespace)
        if self._expiry.is_over(grant.expire_at_unix_s):
            raise CommandError(TOKEN_EXPIRED, "the subscription's expiry is in the past")
        self._preparation.check_limits(session, channel)  # the policy may have suspended
        prepared = await self._preparation.prepare(session, request, namespace, grant, server_side=False)
        publications = go_live(prepared)
        session.reply(ref, prepared.result)
        self._preparation.complete(session, prepared, publications)

    async def unsubscribe(self, session: Session, ref: object, request: UnsubscribeRequest) -> None:
        """Succeeds as well if the session is not subscribed."""
        if not request.channel:
            raise Disconnect(BAD_PROTOCOL, "unsubscribe: channel must not be empty")
        subscription = session.subscriptions.get(request.channel)
        if subscription is not None:
            session.unsubscribe(subscription)
        session.reply(ref, UnsubscribeResult())
