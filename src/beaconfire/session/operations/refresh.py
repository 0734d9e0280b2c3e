"""Refreshing: a new token for a connection or a subscription that expires (section 8 of the reference).

A token without `info` does not change the info, as in Centrifugo: many tokens only extend the lifetime.
"""

from __future__ import annotations

from msgspec import structs

from beaconfire.base.errors import (
    BAD_PROTOCOL,
    BAD_REQUEST,
    CONNECTION_CLOSED,
    CONNECTION_EXPIRED,
    INSUFFICIENT_STATE,
    INVALID_TOKEN,
    PERMISSION_DENIED,
    SUBSCRIPTION_EXPIRED,
    CommandError,
    Disconnect,
)
from beaconfire.model.results import Renewal
from beaconfire.session.operations.decisions import Decisions
from beaconfire.session.operations.expiry import Expiry
from beaconfire.session.operations.resume import Resuming
from beaconfire.session.session import Session


class Refreshing:
    """A session that wants tickets gets a new one with the new expiry."""

    def __init__(self, decisions: Decisions, expiry: Expiry, resuming: Resuming) -> None:
        self._decisions = decisions
        self._expiry = expiry
        self._resuming = resuming

    async def refresh(self, session: Session, token: str) -> Renewal:
        """Renews the connection. Raises CommandError and Disconnect."""
        if not token:
            raise Disconnect(BAD_PROTOCOL, "refresh: token must not be empty")
        if not session.identity.client_refresh:
            raise Disconnect(BAD_PROTOCOL, "refresh: this connection does not expire")
        identity = await self._decisions.refresh(session, token)
        if session.has_ended():
            raise Disconnect(CONNECTION_CLOSED, "the connection ended while it was refreshed")
        if identity.user != session.user:  # other tables know the session by its user
            raise Disconnect(INVALID_TOKEN, "the renewed identity is not that of the connected user")
        if self._expiry.is_over(identity.expire_at_unix_s):
            raise Disconnect(CONNECTION_EXPIRED, "expire_at of the new token is in the past")
        if identity.channels.keys() != session.identity.channels.keys():
            raise Disconnect(INSUFFICIENT_STATE, "the new token has other channels: connect again")
        session.identity = structs.replace(identity, info=identity.info or session.identity.info)
        session.update_info()
        self._expiry.watch_connection(session)
        return Renewal(self._expiry.connection_ttl_s(identity), self._resuming.issue(session, token))

    async def sub_refresh(self, session: Session, channel: str, token: str) -> Renewal:
        """Renews the subscription to the channel. Raises CommandError and Disconnect."""
        if not channel:
            # An error and not a disconnect, because centrifuge-python 0.5 sends no channel: its subscription then
            # expires (2501) and is made again with a new token and recovery, while its connection stays.
            raise CommandError(BAD_REQUEST, "sub_refresh: channel must not be empty")
        subscription = session.subscriptions.get(channel)
        if subscription is None:
            raise CommandError(PERMISSION_DENIED, f"channel {channel!r}: not subscribed")
        if not subscription.grant.client_refresh:
            raise Disconnect(BAD_PROTOCOL, f"channel {channel!r}: the subscription does not expire")
        if not token:
            raise CommandError(BAD_REQUEST, "sub_refresh: token must not be empty")
        grant = await self._decisions.sub_refresh(session, channel, token)
        if self._expiry.is_over(grant.expire_at_unix_s):
            raise Disconnect(SUBSCRIPTION_EXPIRED, "the subscription's new expiry is in the past")
        if session.subscriptions.get(channel) is not subscription:
            raise CommandError(PERMISSION_DENIED, f"channel {channel!r}: not subscribed any more")
        subscription.grant = structs.replace(grant, info=grant.info or subscription.grant.info)
        session.update_info()
        self._expiry.watch_subscription(session, subscription)
        ticket = self._resuming.issue_subscription(session, channel, token, subscription.grant)
        return Renewal(self._expiry.subscription_ttl_s(grant), ticket)
