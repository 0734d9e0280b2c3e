"""A verified user."""

from __future__ import annotations

from msgspec import Raw, Struct

from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.publication import NO_PAYLOAD

NAME_LENGTH_MAX = 128
"""Characters of the name that an anonymous client gives itself. It is nobody's claim but the client's own, and every
join, leave and message carries it to everyone in the room, so a few bytes sent could become a hundred megabytes
delivered."""


class Identity(Struct, frozen=True):
    """A verified user with what the token said. `user` "" is the anonymous user.

    `channels` are server-side subscriptions made at connect. `expire_at_unix_s` 0 is never; `client_refresh` tells
    whether the client itself renews the connection by refresh. `meta` stays on the server.
    """

    user: str = ""
    info: Raw = NO_PAYLOAD
    expire_at_unix_s: float = 0.0
    client_refresh: bool = False
    channels: dict[str, SubscriptionGrant] = {}
    meta: Raw = NO_PAYLOAD
