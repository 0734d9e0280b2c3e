"""Options of channels and of channel names."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from beaconfire.base.options import Options
from beaconfire.base.units import Seconds
from beaconfire.engines.port import Durability


class ChannelOptions(Options, frozen=True, kw_only=True):
    """Behavior of the channels of one namespace."""

    presence: Annotated[bool, Meta(description="Keep a list of the clients that are subscribed to each channel.")] = (
        False
    )
    join_leave: Annotated[bool, Meta(description="Emit joins and leaves when clients subscribe and unsubscribe.")] = (
        False
    )
    force_push_join_leave: Annotated[
        bool, Meta(description="Push joins and leaves to every subscriber, even if the client did not ask for them.")
    ] = False
    history_size: Annotated[int, Meta(ge=0, description="Publications kept per channel; 0 keeps none.")] = 0
    history_ttl: Annotated[Seconds, Meta(description="How long a publication is kept; 0 keeps none.")] = Seconds(0)
    history_meta_ttl: Annotated[
        Seconds,
        Meta(
            description="How long the epoch and offset of a channel are kept after its last publication; 0 means "
            "engine.history_meta_ttl."
        ),
    ] = Seconds(0)
    durability: Annotated[
        Durability,
        Meta(
            description="What an acknowledged publication survives: `memory`, nothing but what the engine survives; "
            "`disk`, also kill -9 and a power failure; `replicated`, also the loss of a machine. Needs history. The "
            "server refuses to start if its engine does not offer this."
        ),
    ] = "memory"
    force_positioning: Annotated[
        bool, Meta(description="Every subscription tracks its position, so that the server notices gaps.")
    ] = False
    allow_positioning: Annotated[bool, Meta(description="Clients may ask for positioning.")] = False
    force_recovery: Annotated[
        bool, Meta(description="Every subscription can recover missed publications after a reconnect.")
    ] = False
    allow_recovery: Annotated[bool, Meta(description="Clients may ask for recovery.")] = False
    force_recovery_mode: Annotated[
        Literal["stream", "cache"],
        Meta(description="Recover every missed publication (`stream`) or only the latest one (`cache`)."),
    ] = "stream"
    auto_cache_recover: Annotated[
        bool,
        Meta(
            description="In cache mode, send the latest publication to every new subscriber, even if the client did "
            "not ask for recovery."
        ),
    ] = False
    allow_subscribe_for_client: Annotated[bool, Meta(description="Users who are not anonymous may subscribe.")] = False
    allow_subscribe_for_anonymous: Annotated[
        bool, Meta(description="The anonymous user may also subscribe; requires allow_subscribe_for_client.")
    ] = False
    allow_publish_for_client: Annotated[bool, Meta(description="Users who are not anonymous may publish.")] = False
    allow_publish_for_subscriber: Annotated[bool, Meta(description="Subscribers may publish.")] = False
    allow_publish_for_anonymous: Annotated[
        bool,
        Meta(description="allow_publish_for_client and allow_publish_for_subscriber also apply to the anonymous user."),
    ] = False
    allow_presence_for_client: Annotated[bool, Meta(description="Users who are not anonymous may read presence.")] = (
        False
    )
    allow_presence_for_subscriber: Annotated[bool, Meta(description="Subscribers may read presence.")] = False
    allow_presence_for_anonymous: Annotated[
        bool,
        Meta(
            description="allow_presence_for_client and allow_presence_for_subscriber also apply to the anonymous user."
        ),
    ] = False
    allow_history_for_client: Annotated[bool, Meta(description="Users who are not anonymous may read history.")] = False
    allow_history_for_subscriber: Annotated[bool, Meta(description="Subscribers may read history.")] = False
    allow_history_for_anonymous: Annotated[
        bool,
        Meta(description="allow_history_for_client and allow_history_for_subscriber also apply to the anonymous user."),
    ] = False
    allow_user_limited_channels: Annotated[
        bool,
        Meta(
            description="In channels like `dialog#42,43`, the users listed in the name may subscribe without a token."
        ),
    ] = False
    channel_regex: Annotated[
        str,
        Meta(
            description="Regular expression that the name after the namespace must match; empty accepts any ASCII name."
        ),
    ] = ""
    allow_tags_filter: Annotated[
        bool,
        Meta(
            description="Clients may subscribe with a tags filter; they get only the publications whose tags match it."
        ),
    ] = False
    allowed_delta_types: Annotated[
        list[str],
        Meta(description="Delta formats that clients may ask for; `fossil` is the only supported format."),
    ] = []
    delta_publish: Annotated[
        bool, Meta(description="Every publication may be sent as a delta, even if the publisher did not ask for it.")
    ] = False
    publication_data_format: Annotated[
        Literal["", "json", "json_object", "binary"],
        Meta(
            description='Required format of publication data; "" accepts any data except empty data, "binary" accepts '
            "any data."
        ),
    ] = ""


class ChannelNameOptions(Options, frozen=True, kw_only=True):
    """Rules for channel names, the same for all namespaces."""

    max_length: Annotated[int, Meta(ge=1, description="Longest channel name; a longer name gets error 107.")] = 255
    private_prefix: Annotated[
        str, Meta(description="A channel whose name starts with this prefix requires a subscription token.")
    ] = "$"
    namespace_boundary: Annotated[
        str, Meta(description="Separates the namespace from the rest of the channel name.")
    ] = ":"
    user_boundary: Annotated[
        str, Meta(description="Starts the list of users in the name of a user-limited channel.")
    ] = "#"
    user_separator: Annotated[str, Meta(description="Separates the users in that list.")] = ","
