"""What a token, the configuration or the server API allows a client in one channel."""

from __future__ import annotations

from msgspec import Raw, Struct

from beaconfire.model.publication import NO_PAYLOAD


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


class SubscriptionClaims(Struct, frozen=True):
    """A verified subscription token: for this user (and this client id, if not empty) in exactly this channel."""

    user: str
    channel: str
    client: str
    grant: SubscriptionGrant
