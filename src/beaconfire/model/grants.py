"""Permissions for one channel, granted by a token, the configuration or the server API."""

from __future__ import annotations

from msgspec import Raw, Struct

from beaconfire.model.publication import NO_PAYLOAD


class SubscriptionOverride(Struct, frozen=True, omit_defaults=True):
    """Channel options that a grant changes for one subscription; None keeps the option of the namespace (section 9).

    For the meaning of each option see `channels.options`.
    """

    presence: bool | None = None
    join_leave: bool | None = None
    force_recovery: bool | None = None
    force_positioning: bool | None = None
    force_push_join_leave: bool | None = None


class SubscriptionGrant(Struct, frozen=True):
    """Permission to be subscribed to one channel, granted by a token, the configuration or the server API.

    `info` becomes `chan_info` in presence, joins, leaves and publications; `data` goes to the client with the
    subscription. `expire_at_unix_s` is in seconds since 1970; 0 means that the grant does not expire. If
    `client_refresh` is true, the client renews the grant with sub_refresh. `issued_at_unix_s` and `token_id` are those
    of the subscription token, as in `Identity`. Unless `client` is empty, the grant is only for the session with this
    client id.
    """

    info: Raw = NO_PAYLOAD
    data: Raw = NO_PAYLOAD
    expire_at_unix_s: float = 0.0
    client_refresh: bool = False
    override: SubscriptionOverride | None = None
    issued_at_unix_s: float | None = None
    token_id: str = ""
    client: str = ""


class SubscriptionClaims(Struct, frozen=True):
    """The content of a verified subscription token.

    The token is valid only for this user, this channel and, unless `grant.client` is empty, this client id. The caller
    must check all three.
    """

    user: str
    channel: str
    grant: SubscriptionGrant
