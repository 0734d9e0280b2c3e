"""Settings of channels and of their names."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from beaconfire.base.options import Options
from beaconfire.base.units import Seconds


class ChannelOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the channels of one namespace behave."""

    presence: Annotated[bool, Meta(description="Track who is subscribed.")] = False
    join_leave: Annotated[bool, Meta(description="Announce who comes and goes.")] = False
    force_push_join_leave: Annotated[
        bool, Meta(description="Push joins and leaves to every subscriber, asked for or not.")
    ] = False
    history_size: Annotated[int, Meta(ge=0, description="Publications kept per channel; 0 keeps none.")] = 0
    history_ttl: Annotated[Seconds, Meta(description="How long a publication is kept; 0 keeps none.")] = Seconds(0)
    history_meta_ttl: Annotated[
        Seconds,
        Meta(description="How long a channel's position outlives its last publication; 0 takes the global value."),
    ] = Seconds(0)
    force_positioning: Annotated[bool, Meta(description="Every subscription watches its position for gaps.")] = False
    allow_positioning: Annotated[bool, Meta(description="Subscriptions may ask for positioning.")] = False
    force_recovery: Annotated[bool, Meta(description="Every subscription can recover what it missed.")] = False
    allow_recovery: Annotated[bool, Meta(description="Subscriptions may ask for recovery.")] = False
    force_recovery_mode: Annotated[
        Literal["stream", "cache"],
        Meta(description="Recover every missed publication (stream) or only the latest one (cache)."),
    ] = "stream"
    auto_cache_recover: Annotated[
        bool, Meta(description="In cache mode, give the latest publication to every new subscriber unasked.")
    ] = False
    allow_subscribe_for_client: Annotated[bool, Meta(description="Any named user may subscribe.")] = False
    allow_subscribe_for_anonymous: Annotated[
        bool, Meta(description="The anonymous user may subscribe too; needs allow_subscribe_for_client.")
    ] = False
    allow_publish_for_client: Annotated[bool, Meta(description="Any named user may publish.")] = False
    allow_publish_for_subscriber: Annotated[bool, Meta(description="Subscribers may publish.")] = False
    allow_publish_for_anonymous: Annotated[
        bool, Meta(description="The anonymous user is treated like a named one when publishing.")
    ] = False
    allow_presence_for_client: Annotated[bool, Meta(description="Any named user may ask who is here.")] = False
    allow_presence_for_subscriber: Annotated[bool, Meta(description="Subscribers may ask who is here.")] = False
    allow_presence_for_anonymous: Annotated[
        bool, Meta(description="The anonymous user is treated like a named one when asking who is here.")
    ] = False
    allow_history_for_client: Annotated[bool, Meta(description="Any named user may read history.")] = False
    allow_history_for_subscriber: Annotated[bool, Meta(description="Subscribers may read history.")] = False
    allow_history_for_anonymous: Annotated[
        bool, Meta(description="The anonymous user is treated like a named one when reading history.")
    ] = False
    allow_user_limited_channels: Annotated[
        bool,
        Meta(description="In channels like `dialog#42,43` the listed users may subscribe without a token."),
    ] = False
    channel_regex: Annotated[
        str,
        Meta(description="Regular expression the name must match after the namespace; empty takes any ASCII."),
    ] = ""
    allow_tags_filter: Annotated[
        bool, Meta(description="Subscriptions may name a filter, and get only publications whose tags pass it.")
    ] = False
    allowed_delta_types: Annotated[
        list[str],
        Meta(description="Kinds of patches that subscriptions may ask for; `fossil` is the only one there is."),
    ] = []
    delta_publish: Annotated[
        bool, Meta(description="Every publication may be sent as a patch, whether its publisher asks for it or not.")
    ] = False
    publication_data_format: Annotated[
        Literal["", "json", "json_object", "binary"],
        Meta(description='What data must look like; "" is anything but empty, "binary" anything at all.'),
    ] = ""


class ChannelNameOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What channel names may look like, whatever their namespace."""

    max_length: Annotated[int, Meta(ge=1, description="Longest channel name; beyond it error 107.")] = 255
    private_prefix: Annotated[str, Meta(description="Names that start with it need a subscription token.")] = "$"
    namespace_boundary: Annotated[str, Meta(description="Ends the namespace part of a name.")] = ":"
    user_boundary: Annotated[str, Meta(description="Starts the list of users of a user-limited channel.")] = "#"
    user_separator: Annotated[str, Meta(description="Separates the users in that list.")] = ","
