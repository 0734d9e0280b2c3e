"""Requests of the methods about sessions: subscribe, unsubscribe, disconnect, refresh, revoke and send. Their result is
always empty."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Raw, UnsetType, field

from beaconfire.api.messages.common import U63_MAX, ApiRequest, ChannelName, Position


class SessionSelection(ApiRequest, frozen=True, kw_only=True):
    """Selects connections. At least one of the three fields is required. A connection is selected if all given fields
    match. If no connection matches, the request has no effect, which is not an error.
    """

    user: Annotated[
        str, Meta(description="Select all connections of this user. `user`, `client` or `session` is required.")
    ] = ""
    client: Annotated[
        str,
        Meta(
            description="Select only the connection with this client id. If `user` is also given, it must match, too."
        ),
    ] = ""
    session: Annotated[
        str,
        Meta(
            description="Select only the connection with this session id. The session id is the `session` of the "
            "connect result or, if that is empty (as with WebSocket), the client id. If `user` or `client` is also "
            "given, it must match, too."
        ),
    ] = ""


class BoolValue(ApiRequest, frozen=True, kw_only=True):
    """An optional boolean."""

    value: bool = False


class SubscribeOverride(ApiRequest, frozen=True, kw_only=True):
    """Channel options that have another value for one subscription. Options that are missing keep their value."""

    presence: BoolValue | None = None
    join_leave: BoolValue | None = None
    force_push_join_leave: BoolValue | None = None
    force_positioning: BoolValue | None = None
    force_recovery: BoolValue | None = None


class SubscribeRequest(SessionSelection, frozen=True, kw_only=True):
    """Creates server-side subscriptions: the clients need no permission. Existing subscriptions to the channel do not
    change.
    """

    channel: ChannelName
    info: (
        Annotated[
            Raw,
            Meta(
                description="JSON that other clients of the channel see as `chan_info` in presence, joins, leaves and "
                "publications."
            ),
        ]
        | UnsetType
    ) = UNSET
    b64info: Annotated[str, Meta(description="Any bytes in base64, instead of `info`.")] = ""
    data: Annotated[Raw, Meta(description="JSON that the client gets together with the subscription.")] | UnsetType = (
        UNSET
    )
    b64data: Annotated[str, Meta(description="Any bytes in base64, instead of `data`.")] = ""
    expire_at: Annotated[
        int,
        Meta(ge=0, le=U63_MAX, description="When the subscription expires, in seconds since 1970. 0 means never."),
    ] = 0
    recover_since: Annotated[
        Position | None, Meta(description="Deliver the publications after this position to the client.")
    ] = None
    override: Annotated[
        SubscribeOverride | None, Meta(description="Channel options that are different for this subscription.")
    ] = None


class UnsubscribeRequest(SessionSelection, frozen=True, kw_only=True):
    """The clients get code 2000 and do not subscribe again automatically."""

    channel: Annotated[str, Meta(description="The name of the channel. Empty means all channels.")] = ""


class DisconnectReason(ApiRequest, frozen=True, kw_only=True):
    """The code and reason that the clients get. After the codes 3500 to 3999 and 4500 to 4999 clients do not
    reconnect."""

    code: Annotated[int, Meta(description="3000 to 4999. 0 means 3503, force disconnect.")] = 0
    reason: Annotated[
        str,
        Meta(
            description="At most 123 bytes. The default is the reason of the code. Use plain text, because the "
            "JavaScript SDK treats a reason that is JSON differently."
        ),
    ] = ""


class DisconnectRequest(SessionSelection, frozen=True, kw_only=True):
    """Closes connections. With the default code the clients do not reconnect."""

    disconnect: Annotated[
        DisconnectReason | None, Meta(description="Code and reason. The default is 3503, force disconnect.")
    ] = None
    whitelist: Annotated[list[str], Meta(description="Client ids of connections that are not closed.")] = field(
        default_factory=list
    )


class RefreshRequest(SessionSelection, frozen=True, kw_only=True):
    """Changes when connections expire."""

    expired: Annotated[
        bool,
        Meta(description="Expire the connections now: disconnect code 3005. The clients reconnect with new tokens."),
    ] = False
    expire_at: Annotated[
        int,
        Meta(ge=0, le=U63_MAX, description="When the connections expire, in seconds since 1970. 0 means never."),
    ] = 0
    info: (
        Annotated[
            Raw,
            Meta(
                description="JSON that replaces the `conn_info` of the connections: immediately in presence, and in "
                "all later leaves and publications."
            ),
        ]
        | UnsetType
    ) = UNSET


class RevokeRequest(ApiRequest, frozen=True, kw_only=True):
    """Within a second no node accepts the tokens any more, the connections made with them end with code 3005, and the
    subscriptions with 2501. SDKs then ask the application for a new token, so refuse it there. Exactly one of `user`
    and `token_id` is required. The call may be repeated.
    """

    user: Annotated[
        str,
        Meta(
            description="Revoke all connection and subscription tokens of this user whose claim `iat` is not after the "
            "call. A token without `iat` counts as issued before. At most 1024 bytes."
        ),
    ] = ""
    channel: Annotated[
        str,
        Meta(
            description="With `user`: revoke only the subscription tokens for this channel, and the connection tokens "
            "whose claims `channels` or `subs` name it."
        ),
    ] = ""
    token_id: Annotated[
        str, Meta(description="Revoke the tokens with this claim `jti`, issued at any time. At most 1024 bytes.")
    ] = ""
    expire_at: Annotated[
        int,
        Meta(
            ge=0,
            le=U63_MAX,
            description="How long the revocation is kept, in seconds since 1970, at most a year from now. Must not be "
            "before the last of the tokens expires, because that token would be accepted again. 0 means "
            "`api.revocation_ttl` from now.",
        ),
    ] = 0


class SendRequest(SessionSelection, frozen=True, kw_only=True):
    """Sends data to connections, outside of any channel. Delivery is at most once, without history. `data` or `b64data`
    is required."""

    data: Annotated[Raw, Meta(description="JSON that the clients get as a message.")] | UnsetType = UNSET
    b64data: Annotated[str, Meta(description="Any bytes in base64, instead of `data`.")] = ""
