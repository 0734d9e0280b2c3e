"""Settings of client connections."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from beaconfire.base.options import Options
from beaconfire.base.units import Seconds, Size


class ClientOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Connections of clients: who may come, how they are watched, what they may use up."""

    allowed_origins: Annotated[
        list[str],
        Meta(description='Web origins that may connect, globs allowed; "*" is any. No Origin header always passes.'),
    ] = []
    insecure: Annotated[
        bool, Meta(description="Development only: anyone may connect, subscribe and publish without a token.")
    ] = False
    allow_anonymous: Annotated[
        bool,
        Meta(description="Without a token a client becomes the anonymous user instead of being refused."),
    ] = False
    disallow_anonymous_connection_tokens: Annotated[
        bool, Meta(description="Refuse connection tokens whose sub claim is empty.")
    ] = False
    debug_reasons: Annotated[
        bool, Meta(description="Tell clients which claim, field or check failed; helps attackers as well.")
    ] = False
    ping_interval: Annotated[Seconds, Meta(description="Time between pings to a client.")] = Seconds(25)
    pong_timeout: Annotated[
        Seconds, Meta(description="How long a client has to answer a ping; must be below ping_interval.")
    ] = Seconds(8)
    stale_close_delay: Annotated[
        Seconds, Meta(description="How long a connection may stay unauthenticated before disconnect 3502.")
    ] = Seconds(10)
    expired_close_delay: Annotated[
        Seconds, Meta(description="Grace after a connection's expiry before disconnect 3005.")
    ] = Seconds(25)
    expired_sub_close_delay: Annotated[
        Seconds, Meta(description="Grace after a subscription's expiry before unsubscribe 2501.")
    ] = Seconds(25)
    presence_update_interval: Annotated[
        Seconds,
        Meta(description="How often presence entries are refreshed; they live for 2.2 times as long."),
    ] = Seconds(27)
    channel_position_check_delay: Annotated[
        Seconds,
        Meta(description="How often positioned subscriptions are compared with the stream, jittered; 0 never."),
    ] = Seconds(40)
    connect_include_server_time: Annotated[bool, Meta(description="Put the server's time in connect replies.")] = False
    user_personal_channel: Annotated[
        bool, Meta(description="Subscribe every named user to the channel `#<user>` at connect.")
    ] = False
    user_personal_channel_namespace: Annotated[
        str, Meta(description="Namespace of personal channels; empty is none.")
    ] = ""
    channel_limit: Annotated[
        int,
        Meta(ge=1, description="Channels per connection; beyond it error 106, or 3505 for server-side ones."),
    ] = 128
    queue_max_size: Annotated[
        Size, Meta(description="Bytes waiting for one slow connection; beyond it disconnect 3008.")
    ] = Size(1048576)
    reply_max_size: Annotated[
        Size,
        Meta(
            description="Bytes of publications in one reply, and never more than queue_max_size. A history page is "
            "cut to it, a recovery goes on in pushes after the reply; larger presence is error 106."
        ),
    ] = Size(524288)
    command_queue_max: Annotated[
        int,
        Meta(ge=1, description="Commands of one connection waiting for a slow one; beyond it reading pauses."),
    ] = 64
    connection_limit: Annotated[
        int,
        Meta(
            ge=0,
            description="Connections of this node; beyond it HTTP 503. 0 takes 90 % of the open-file limit.",
        ),
    ] = 0
    connection_rate_limit: Annotated[
        int,
        Meta(ge=0, description="New connections per second of this node; beyond it HTTP 503. 0 is no limit."),
    ] = 0
    user_connection_limit: Annotated[
        int,
        Meta(ge=0, description="Connections per user on this node; beyond it disconnect 3504. 0 is no limit."),
    ] = 0
    message_rate_limit: Annotated[
        int,
        Meta(
            ge=0,
            description="Messages per second from one connection; beyond it disconnect 3013. 0 is no limit.",
        ),
    ] = 10_000
    byte_rate_limit: Annotated[
        Size,
        Meta(description="Bytes per second from one connection; beyond it disconnect 3013. 0 is no limit."),
    ] = Size(16 * 1024 * 1024)
    history_max_publication_limit: Annotated[
        int,
        Meta(ge=1, description="Publications in one history reply to a client; larger requests are cut to it."),
    ] = 300
    recovery_max_publication_limit: Annotated[
        int, Meta(ge=1, description="Publications recovered at once; with more missed, recovered is false.")
    ] = 300
    tags_filter_max_nodes: Annotated[
        int, Meta(ge=1, description="Comparisons and branches in one tags filter; beyond it error 107.")
    ] = 64
    tags_filter_max_values: Annotated[
        int, Meta(ge=0, description="Values in all lists of one tags filter together; beyond it error 107.")
    ] = 1000

    @property
    def reply_size_limit(self) -> int:
        """Bytes of publications in one reply. A larger reply alone would be more than may wait for a client."""
        return min(int(self.reply_max_size), int(self.queue_max_size))
