"""The identity of a session."""

from __future__ import annotations

from msgspec import Raw, Struct

from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.publication import NO_PAYLOAD

NAME_LENGTH_MAX = 128
"""The longest name, in characters, that a client may give itself without a token. Each join, leave and publication
delivers the name to every subscriber, so without a limit a small request could cause a hundred megabytes of traffic."""


class Identity(Struct, frozen=True):
    """The verified user id of a session, and the claims of its token (section 17).

    `user` "" is the anonymous user. `info` becomes `conn_info` in presence, joins, leaves and publications.
    `channels` are the server-side subscriptions to make at connect, by channel. `expire_at_unix_s` is in seconds since
    1970; 0 means that the connection does not expire. If `client_refresh` is true, the client renews the connection
    with refresh. `data` goes to the client with the reply to connect. `meta` is never sent to clients: policies and the
    server API see it.

    `issued_at_unix_s` is when the token was issued: its claim `iat`, 0 if the token has none. It is None if no token
    stands behind the identity. `token_id` is the claim `jti`, or "". The server API can revoke only what has a token.
    """

    user: str = ""
    info: Raw = NO_PAYLOAD
    expire_at_unix_s: float = 0.0
    client_refresh: bool = False
    channels: dict[str, SubscriptionGrant] = {}
    data: Raw = NO_PAYLOAD
    meta: Raw = NO_PAYLOAD
    issued_at_unix_s: float | None = None
    token_id: str = ""
