"""Who a client is and what it was granted: the words between authentication and the rest."""

from __future__ import annotations

from typing import Protocol

from msgspec import Raw, Struct

from beaconfire.messages import NO_PAYLOAD

NAME_LENGTH_MAX = 128
"""Characters of the name that an anonymous client gives itself. It is nobody's claim but the client's own, and every
join, leave and message carries it to everyone in the room, so a few bytes sent could become a hundred megabytes
delivered."""


class SubscriptionOverride(Struct, frozen=True, omit_defaults=True):
    """What a token may change of the channel's options for one subscription; None leaves the option as it is."""

    presence: bool | None = None
    join_leave: bool | None = None
    force_recovery: bool | None = None
    force_positioning: bool | None = None
    force_push_join_leave: bool | None = None


class SubscriptionGrant(Struct, frozen=True):
    """Leave to be in a channel, whoever gave it: a token, the configuration, the server API.

    `expire_at_unix_s` 0 is never. `client_refresh` tells whether the client itself renews it by sub_refresh.
    """

    info: Raw = NO_PAYLOAD
    data: Raw = NO_PAYLOAD
    expire_at_unix_s: float = 0.0
    client_refresh: bool = False
    override: SubscriptionOverride | None = None


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


class SubscriptionClaims(Struct, frozen=True):
    """A verified subscription token: for this user (and this client id, if not empty) in exactly this channel."""

    user: str
    channel: str
    client: str
    grant: SubscriptionGrant


class TokenError(Exception):
    """A token that was refused. The text says which claim or check failed, never the token itself."""


class TokenExpired(TokenError):
    """Everything else about the token may be right: a new one helps."""


class TokenInvalid(TokenError):
    """It can never work: wrong key, algorithm, claim or shape."""


class TokenUnverifiable(TokenError):
    """The keys could not be had just now (JWKS endpoint unreachable); the token may be good."""


class TokenVerifier(Protocol):
    """Checks tokens. Raises TokenExpired, TokenInvalid or TokenUnverifiable."""

    async def verify_connection(self, token: str) -> Identity: ...

    async def verify_subscription(self, token: str) -> SubscriptionClaims: ...
