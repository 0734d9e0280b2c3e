"""Subscribing at the request of a client."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from beaconfire.base.errors import PERMISSION_DENIED, TOKEN_EXPIRED, CommandError
from beaconfire.channels.namespaces import Namespace, Namespaces
from beaconfire.model.requests import SubscriptionRequest
from beaconfire.model.results import SubscriptionStart
from beaconfire.policy.port import Via
from beaconfire.session.operations.decisions import Decisions
from beaconfire.session.operations.expiry import Expiry
from beaconfire.session.operations.lookup import ChannelLookup, check_connected
from beaconfire.session.operations.prepare import Preparation
from beaconfire.session.operations.resume import Resuming
from beaconfire.session.operations.strategy import check_strategy
from beaconfire.session.session import Session


class Subscribing:
    """Section 9 of the reference."""

    def __init__(
        self,
        decisions: Decisions,
        namespaces: Namespaces,
        lookup: ChannelLookup,
        preparation: Preparation,
        expiry: Expiry,
        resuming: Resuming,
    ) -> None:
        self._decisions = decisions
        self._namespaces = namespaces
        self._lookup = lookup
        self._preparation = preparation
        self._expiry = expiry
        self._resuming = resuming

    def check_channel(self, session: Session, channel: str) -> Namespace:
        """The namespace of the channel. Raises CommandError 102, 105, 106 or 107, or Disconnect, if the session cannot
        subscribe."""
        check_connected(session)
        self._preparation.check_limits(session, channel)
        return self._lookup.namespace(session, channel)

    async def subscribe(
        self, session: Session, request: SubscriptionRequest, reply: Callable[[SubscriptionStart], None]
    ) -> None:
        """Subscribes the session, if a policy permits.

        `reply` is called when the subscription is live, before anything else of the channel is sent to the client.
        Raises CommandError and Disconnect.
        """
        channel = request.channel
        namespace = self.check_channel(session, channel)
        check_strategy(request, namespace)
        decided = self._resuming.subscription(session, request)
        if decided is not None:
            grant = self._decisions.resume_subscription(session, channel, decided)
        elif self._namespaces.is_private(channel) and not request.token:
            raise CommandError(PERMISSION_DENIED, f"channel {channel!r} is private: send a subscription token")
        else:
            grant = await self._decisions.subscribe(session, request, namespace, Via.COMMAND)
        if self._expiry.is_over(grant.expire_at_unix_s):
            raise CommandError(TOKEN_EXPIRED, "the subscription's expiry is in the past")
        self._preparation.check_limits(session, channel)  # the policy may have suspended
        prepared = await self._preparation.prepare(session, request, namespace, grant)
        start = prepared.start
        if session.wants_tickets and decided is None:
            start = replace(start, ticket=self._resuming.issue_subscription(session, channel, request.token, grant))
        self._preparation.enter(session, [prepared], lambda: reply(start))
