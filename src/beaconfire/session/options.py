"""Options of client connections."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from beaconfire.base.options import SECRET, Options
from beaconfire.base.units import Seconds, Size


class ClientOptions(Options, frozen=True, kw_only=True):
    """Client connections: who may connect, keepalive, and limits per client."""

    allowed_origins: Annotated[
        list[str],
        Meta(
            description='Web origins that may connect; `*` is a wildcard and "*" allows every origin. Requests without '
            "an Origin header are always accepted."
        ),
    ] = []
    insecure: Annotated[
        bool, Meta(description="Development only: every client may connect, subscribe and publish without a token.")
    ] = False
    allow_anonymous: Annotated[
        bool,
        Meta(description="A client without a token connects as the anonymous user instead of being refused."),
    ] = False
    disallow_anonymous_connection_tokens: Annotated[
        bool, Meta(description="Refuse connection tokens whose sub claim is empty.")
    ] = False
    debug_reasons: Annotated[
        bool, Meta(description="Tell clients which claim, field or check failed; this also helps attackers.")
    ] = False
    ping_interval: Annotated[Seconds, Meta(description="Time between two pings to a client; 0 sends no pings.")] = (
        Seconds(25)
    )
    pong_timeout: Annotated[
        Seconds, Meta(gt=0, description="Time within which a client must answer a ping; shorter than ping_interval.")
    ] = Seconds(8)
    stale_close_delay: Annotated[
        Seconds, Meta(gt=0, description="Time within which a client must authenticate; then disconnect 3502.")
    ] = Seconds(10)
    expired_close_delay: Annotated[
        Seconds, Meta(description="Extra time after a connection expires; then disconnect 3005.")
    ] = Seconds(25)
    expired_sub_close_delay: Annotated[
        Seconds, Meta(description="Extra time after a subscription expires; then unsubscribe 2501.")
    ] = Seconds(25)
    gap_rate_limit: Annotated[
        int,
        Meta(
            ge=0,
            description="Subscriptions per second of this node that are told that publications are missing and "
            "subscribe again; more of them wait in random order. 0 means no limit.",
        ),
    ] = 2000
    presence_update_interval: Annotated[
        Seconds,
        Meta(gt=0, description="Time between two updates of a presence entry; an entry lives 2.2 times as long."),
    ] = Seconds(27)
    channel_position_check_delay: Annotated[
        Seconds,
        Meta(
            description="Time between two comparisons of a channel with its stream, with jitter, if the channel has "
            "positioned subscriptions; 0 means never."
        ),
    ] = Seconds(40)
    connect_include_server_time: Annotated[
        bool, Meta(description="Include the time of the server in connect replies.")
    ] = False
    user_personal_channel: Annotated[
        bool, Meta(description="Subscribe every user who is not anonymous to the channel `#<user>` at connect.")
    ] = False
    user_personal_channel_namespace: Annotated[
        str, Meta(description="Namespace of the personal channels; empty means no namespace.")
    ] = ""
    ticket_secret: Annotated[
        str,
        Meta(
            description="Secret of resume tickets, the same on all nodes. A new secret makes all tickets void. Empty "
            "means a secret that is derived from `token.hmac_secret`, or without that one a random secret of this "
            "start.",
            extra=SECRET,
        ),
    ] = ""
    ticket_lifetime: Annotated[
        Seconds,
        Meta(
            description="How long a client may return with a resume ticket instead of having its token verified and "
            "handlers called; never longer than its token is valid. 0 means no tickets."
        ),
    ] = Seconds(86400)
    channel_limit: Annotated[
        int,
        Meta(
            ge=1,
            description="Channels per connection; more get error 106, or disconnect 3505 if the server subscribes.",
        ),
    ] = 128
    queue_max_size: Annotated[
        Size, Meta(gt=0, description="Bytes that may wait in the outbox of a connection; more get disconnect 3008.")
    ] = Size(1048576)
    reply_max_size: Annotated[
        Size,
        Meta(
            gt=0,
            description="Bytes of publications in one reply, never more than queue_max_size. A history page is cut "
            "to this size, a recovery continues in pushes after the reply, a larger presence reply becomes error 106.",
        ),
    ] = Size(524288)
    command_queue_max: Annotated[
        int,
        Meta(
            ge=1,
            description="Commands of one connection that may wait for a slow command; more pause reading from the "
            "connection.",
        ),
    ] = 64
    concurrent_calls_max: Annotated[
        int,
        Meta(
            ge=1,
            description="RPC calls of one connection that may run at the same time; the next call and the commands "
            "after it wait.",
        ),
    ] = 16
    decision_timeout: Annotated[
        Seconds,
        Meta(
            gt=0,
            description="How long a handler of the application or a webhook may take for one decision; then the "
            "command fails with error 100, which clients may retry.",
        ),
    ] = Seconds(5)
    connection_limit: Annotated[
        int,
        Meta(
            ge=0,
            description="Connections of this node; more get HTTP 503. Each of `server.workers` processes takes an "
            "equal part, rounded up. 0 means 90 % of the open-file limit of each process.",
        ),
    ] = 0
    connection_rate_limit: Annotated[
        int,
        Meta(
            ge=0,
            description="New connections per second of this node; more get HTTP 503. Each of `server.workers` "
            "processes takes an equal part, rounded up. 0 means no limit.",
        ),
    ] = 0
    user_connection_limit: Annotated[
        int,
        Meta(
            ge=0,
            description="Connections per user, over all live nodes of the engine; more get disconnect 3504. After an "
            "engine has lost its memory, all count again within presence_update_interval. 0 means no limit.",
        ),
    ] = 0
    message_rate_limit: Annotated[
        int,
        Meta(
            ge=0,
            description="Messages per second from one connection; more get disconnect 3013. 0 means no limit.",
        ),
    ] = 10_000
    byte_rate_limit: Annotated[
        Size,
        Meta(description="Bytes per second from one connection; more get disconnect 3013. 0 means no limit."),
    ] = Size(16 * 1024 * 1024)
    history_max_publication_limit: Annotated[
        int,
        Meta(ge=1, description="Publications in one history reply to a client; a larger request is cut to this limit."),
    ] = 300
    recovery_max_publication_limit: Annotated[
        int, Meta(ge=1, description="Publications in one recovery; if more were missed, `recovered` is false.")
    ] = 300
    tags_filter_max_nodes: Annotated[
        int, Meta(ge=1, description="Comparisons and branches in one tags filter; more get error 107.")
    ] = 64
    tags_filter_max_values: Annotated[
        int, Meta(ge=0, description="Values in all lists of one tags filter together; more get error 107.")
    ] = 1000

    @property
    def reply_size_limit(self) -> int:
        """Bytes of publications in one reply. A reply larger than the outbox would disconnect the client."""
        return min(int(self.reply_max_size), int(self.queue_max_size))
