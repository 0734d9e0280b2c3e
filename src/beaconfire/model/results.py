"""Results of the operations of a session, the same for every protocol, which translates them into its own messages.

Failed operations raise `CommandError` or `Disconnect` instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Raw, Struct

from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import NO_PAYLOAD, Publication


class SubscriptionStart(Struct, frozen=True):
    """The session is subscribed to `channel`.

    `position` is the position from which the subscription delivers; None if the subscription has no position. After a
    successful recovery with publications it is the position of the request, and the client moves on from there by the
    offsets of `publications`, which are in ascending order. `recovered` tells whether they are all that the client
    missed; it has a meaning only if `was_recovering`, which means that the request had a position. `has_patches` says
    that publications may be delivered as patches. `ttl_s` is the time in whole seconds after which the client must
    refresh the subscription; 0 if it need not. `data` comes from the grant. `ticket` is for the next subscription to
    the channel; it is empty if there is no new one.
    """

    channel: str
    position: StreamPosition | None = None
    recoverable: bool = False
    was_recovering: bool = False
    recovered: bool = False
    publications: Sequence[Publication] = ()
    has_patches: bool = False
    ttl_s: int = 0
    data: Raw = NO_PAYLOAD
    ticket: str = ""


class ConnectionStart(Struct, frozen=True):
    """The session is connected.

    `client` is its id, and `data` comes from the identity. `ttl_s` is the time in whole seconds after which the client
    must refresh the connection; 0 if it need not. `subscriptions` are the server-side subscriptions.
    `ticket` is for the next connection; it is empty if there is no new one.
    """

    client: str
    ttl_s: int = 0
    data: Raw = NO_PAYLOAD
    subscriptions: Sequence[SubscriptionStart] = ()
    ticket: str = ""


class Renewal(NamedTuple):
    """A connection or a subscription has a new expiry. `ttl_s` is the time in whole seconds until the next refresh; 0
    if none is needed. `ticket` replaces the ticket of the client; it is empty if there is no new one."""

    ttl_s: int
    ticket: str = ""
