"""The settings that more than one part of the house looks at, as frozen objects that travel down.

One declaration each: name, type, default, bounds and documentation. The configuration file, environment variables,
`beaconfire config` and `docs/reference/settings.md` are all made from these.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from beaconfire.units import Seconds, Size

SECRET = {"secret": True}
"""The `extra` of an option whose value is never shown: not in errors, not in `beaconfire config show`, not in logs."""


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections of the configuration."""


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


class ChannelNameOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What channel names may look like, whatever their namespace."""

    max_length: Annotated[int, Meta(ge=1, description="Longest channel name; beyond it error 107.")] = 255
    private_prefix: Annotated[str, Meta(description="Names that start with it need a subscription token.")] = "$"
    namespace_boundary: Annotated[str, Meta(description="Ends the namespace part of a name.")] = ":"
    user_boundary: Annotated[str, Meta(description="Starts the list of users of a user-limited channel.")] = "#"
    user_separator: Annotated[str, Meta(description="Separates the users in that list.")] = ","


class WebSocketOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The WebSocket transport."""

    message_size_limit: Annotated[
        Size,
        Meta(description="Largest message from a client; beyond it close code 1009, before memory is taken."),
    ] = Size(65536)
    compression: Annotated[
        bool,
        Meta(description="Compress messages (permessage-deflate) for clients that offer it: fewer bytes, more CPU."),
    ] = False
    compression_min_size: Annotated[
        Size, Meta(description="Smaller messages are sent as they are, because compressing gains nothing.")
    ] = Size(128)
    compression_level: Annotated[int, Meta(ge=1, le=9, description="1 is fastest, 9 makes the smallest messages.")] = 1
    write_timeout: Annotated[
        Seconds, Meta(description="How long a connection may take nothing of what waits for it; then 3009.")
    ] = Seconds(10)
    close_timeout: Annotated[
        Seconds,
        Meta(description="How long a client has to answer a close frame before the TCP connection is reset."),
    ] = Seconds(5)


class SwitchOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint that has nothing else to be set."""

    enabled: Annotated[bool, Meta(description="Serve it.")] = True


class StreamOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A transport whose server's half is a response that does not end."""

    enabled: Annotated[bool, Meta(description="Serve it.")] = True
    max_request_body_size: Annotated[
        Size, Meta(description="Largest body of the request that opens it; beyond it HTTP 413.")
    ] = Size(65536)
    close_timeout: Annotated[
        Seconds,
        Meta(description="How long a client has to read the rest of an ended stream before the connection is reset."),
    ] = Seconds(5)


class PollOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Long polling, at `/connection/poll`, and commands of such clients, at `/connection/commands`."""

    enabled: Annotated[bool, Meta(description="Serve it.")] = True
    max_request_body_size: Annotated[Size, Meta(description="Largest body of a request; beyond it HTTP 413.")] = Size(
        65536
    )
    max_response_size: Annotated[
        Size,
        Meta(
            description="Bytes of messages with which an answer is full. News that is left comes with the next one; "
            "commands that are left are not done and get error 111."
        ),
    ] = Size(524288)
    max_wait: Annotated[
        Seconds, Meta(description="How long a request waits for something new; a client may ask for less.")
    ] = Seconds(25)


class EmulationOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The client's half of such transports, `POST /emulation`."""

    max_request_body_size: Annotated[
        Size, Meta(description="Largest body of a request with commands; beyond it HTTP 413.")
    ] = Size(65536)


class PlainOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plain JSON protocol for people without an SDK, at `/ws`."""

    enabled: Annotated[bool, Meta(description="Serve the plain protocol.")] = True
    path: Annotated[str, Meta(pattern="^/", description="Where.")] = "/ws"
    lobby: Annotated[
        bool,
        Meta(description="Frames that are no message of the protocol go to every connection, the sender too."),
    ] = False
    lobby_channel: Annotated[str, Meta(min_length=1, description="The channel that carries them.")] = "lobby"


class ServerOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The process: sockets, HTTP and shutdown."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8000
    tls_cert: Annotated[str, Meta(description="Path of a PEM certificate chain; serves HTTPS and WSS.")] = ""
    tls_key: Annotated[str, Meta(description="Path of its PEM private key.")] = ""
    backlog: Annotated[int, Meta(ge=1, description="Connections the kernel holds until they are accepted.")] = 4096
    handshake_timeout: Annotated[
        Seconds, Meta(description="How long a connection may take to send its HTTP request; then it is cut.")
    ] = Seconds(10)
    header_max_size: Annotated[
        Size,
        Meta(
            description="Largest HTTP request head, and largest trailer; beyond it HTTP 431 and the connection is cut."
        ),
    ] = Size(32 * 1024)
    keep_alive_timeout: Annotated[Seconds, Meta(description="How long an idle HTTP connection is kept.")] = Seconds(60)
    send_buffer_max: Annotated[
        Size,
        Meta(
            description="Bytes the kernel buffers for one connection whose client does not read (SO_SNDBUF); "
            "0 leaves it to the system, which may take megabytes."
        ),
    ] = Size(128 * 1024)
    trusted_proxies: Annotated[
        list[str], Meta(description="Addresses whose X-Forwarded headers are believed, in logs.")
    ] = []
    demo: Annotated[bool, Meta(description="Serve the chat demo at `/`.")] = False
    drain_delay: Annotated[
        Seconds, Meta(description="After SIGTERM: time between readiness going red and the end of listening.")
    ] = Seconds(0)
    drain_window: Annotated[
        Seconds, Meta(description="After SIGTERM: time over which sessions are told to reconnect elsewhere.")
    ] = Seconds(5)
    shutdown_timeout: Annotated[Seconds, Meta(description="After SIGTERM: hard limit for everything together.")] = (
        Seconds(30)
    )


class EngineOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What keeps history and presence, and joins nodes."""

    type: Annotated[Literal["memory"], Meta(description="`memory`: in this process, nothing else needed.")] = "memory"
    history_meta_ttl: Annotated[
        Seconds, Meta(description="How long a channel's position outlives its last publication.")
    ] = Seconds(30 * 86400)
    history_max_bytes: Annotated[
        Size,
        Meta(
            description="Memory for the history and positions of all channels together; beyond it the oldest "
            "publications are dropped, in whatever channel, and clients that come back for them are told "
            "`recovered: false`."
        ),
    ] = Size(1024**3)
    detach_delay: Annotated[
        Seconds, Meta(description="How long the node still listens to a channel after its last subscriber left.")
    ] = Seconds(1)


class LogOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged, to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="The least that is logged.")] = (
        "info"
    )
    format: Annotated[
        Literal["auto", "json", "text"], Meta(description="JSON lines, readable text, or text on a terminal only.")
    ] = "auto"
