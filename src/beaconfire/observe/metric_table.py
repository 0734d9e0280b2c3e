"""The table of all metrics. `MetricsSink` creates its series from it, and `docs/reference/metrics.md` is generated.

Names never change, because dashboards and alerts use them. The values of a label come from a closed set or from the
configuration. A text that a client can choose is never a label.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from beaconfire.base.errors import DISCONNECTS, ERRORS, UNSUBSCRIBES
from beaconfire.policy.tickets import TICKET_REFUSALS
from beaconfire.transports.endpoint_table import ENDPOINT_LIMITS

OTHER = "other"
"""The label value for everything outside the closed set of a label."""

LIMITS = (
    "client.connection_limit",
    "client.connection_rate_limit",
    "client.user_connection_limit",
    "client.message_rate_limit",
    "client.byte_rate_limit",
    "client.queue_max_size",
    "client.reply_max_size",
    "client.command_queue_max",
    "client.concurrent_calls_max",
    "client.decision_timeout",
    "client.channel_limit",
    "client.gap_rate_limit",
    "client.history_max_publication_limit",
    "client.recovery_max_publication_limit",
    "client.tags_filter_max_nodes",
    "client.tags_filter_max_values",
    "client.stale_close_delay",
    "client.pong_timeout",
    "channel_names.max_length",
    "engine.history_max_bytes",
    *ENDPOINT_LIMITS,
    "server.handshake_timeout",
    "server.header_max_size",
    "server.keep_alive_timeout",
    "http_pipeline_max",
    "api.request_max_size",
    "api.response_max_size",
    "api.batch_max",
    "body_pause_max",
    "poll_commands_max",
    "tags_filter_depth_max",
    "token_length_max",
    "ticket_length_max",
    "jwks_unknown_kids_max",
    "announcements_waiting_max",
    "revocations_max",
    "storage_waiting_max",
    "ended_waiting_max",
    "hub_frame_max",
    "hub_output_max",
    "hub_calls_max",
    "hub_hello_timeout",
    "forwarded_commands_max",
)
"""The names of limits in `LimitHit`: settings (section and name), and the fixed limits of HTTP, filters, tokens
and the hub."""

SDK_NAMES = frozenset({"js", "python", "go", "dart", "swift", "java", "csharp", "c#"})
"""The names that SDKs send. A client may send any name, so all other names are counted together."""

API_METHODS = frozenset(
    {
        "publish",
        "broadcast",
        "subscribe",
        "unsubscribe",
        "disconnect",
        "refresh",
        "presence",
        "presence_stats",
        "history",
        "history_remove",
        "channels",
        "connections",
        "info",
        "batch",
        "rpc",
        "send",
        "revoke",
        "migration",
        "migration_read",
        "migration_verify",
    }
)
HTTP_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
DROPPED_WORK = ("announcements", "subscribe", "shutdown")
REVOKED = ("session", "subscription", "token")
TICKET_KINDS = ("connection", "subscription")
TICKET_OUTCOMES = ("accepted", *TICKET_REFUSALS)
HANDSHAKE_REASONS = ("origin", "limit", "rate", "draining", "bad")

DISCONNECT_CODES = {code.code: str(code.code) for code in DISCONNECTS}
UNSUBSCRIBE_CODES = {code.code: str(code.code) for code in UNSUBSCRIBES}
ERROR_CODES = {0: "0"} | {code.code: str(code.code) for code in ERRORS} | DISCONNECT_CODES
"""Codes that the application chooses (4000-4999, and codes in calls of the server API) are counted as `other`."""

_REQUEST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_COMMAND_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LATE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_FANOUT_S = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
_PUBLICATIONS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
_SUBSCRIBERS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0, 100_000.0)


class Metric(Struct, frozen=True):
    """One metric. `unit` is empty for counts. `buckets` are the upper bounds of a histogram, without +Inf."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    unit: str = ""
    buckets: tuple[float, ...] = ()


def _counter(name: str, help: str, *labels: str, unit: str = "") -> Metric:
    return Metric(name, "counter", labels, help, unit)


def _gauge(name: str, help: str, *labels: str, unit: str = "") -> Metric:
    return Metric(name, "gauge", labels, help, unit)


def _histogram(name: str, help: str, buckets: tuple[float, ...], *labels: str, unit: str = "") -> Metric:
    return Metric(name, "histogram", labels, help, unit, buckets)


METRICS: tuple[Metric, ...] = (
    _gauge(
        "beaconfire_worker_up",
        "1 if this process has answered the scrape: `hub` or the number of a worker. Only if `server.workers` > 1.",
        "worker",
    ),
    _counter(
        "beaconfire_worker_restarts_total",
        "Processes that were started because the one before had ended. Only if `server.workers` > 1.",
        "worker",
    ),
    # HTTP, with the names that dashboards for web services expect
    _counter("http_requests_total", "HTTP requests answered, without WebSocket upgrades.", "method", "path", "status"),
    _histogram(
        "request_duration_seconds",
        "Time from the request to the end of the response.",
        _REQUEST_S,
        "method",
        "path",
        unit="seconds",
    ),
    # the current state of the node
    _gauge("beaconfire_build_info", "Always 1. The label is the version of the server.", "version"),
    _gauge("beaconfire_connections", "Open connections, with or without an authenticated session."),
    _gauge("beaconfire_sessions", "Authenticated sessions."),
    _gauge("beaconfire_users", "Distinct users with a session, without the anonymous user."),
    _gauge("beaconfire_channels", "Channels with at least one subscriber on this node."),
    _gauge("beaconfire_subscriptions", "Subscriptions of all sessions."),
    _gauge(
        "beaconfire_queue_bytes",
        "Bytes waiting in the outboxes of all sessions. Only slow sessions have such bytes.",
        unit="bytes",
    ),
    _gauge(
        "beaconfire_send_queue_bytes",
        "Bytes in the kernel's send queues of all connections, not acknowledged by the peers. Linux only, else 0.",
        unit="bytes",
    ),
    _gauge("beaconfire_history_publications", "Publications in the history of all channels."),
    _gauge(
        "beaconfire_history_bytes",
        "Memory for the history and positions of all channels. `engine.history_max_bytes` limits it.",
        unit="bytes",
    ),
    _gauge("beaconfire_engine_up", "1 while the engine works, else 0. The check `engine` of readiness says why."),
    _gauge(
        "beaconfire_migration_waiting",
        "Channels with changes that the new engine of a migration does not have yet. 0 without a migration.",
    ),
    _gauge(
        "beaconfire_migration_read_percent",
        "The part of the channels whose history is read from the new engine of a migration.",
    ),
    _gauge("beaconfire_revocations", "Revocations of tokens that this node keeps."),
    _gauge("beaconfire_draining", "1 from the beginning of a drain, else 0."),
    _gauge("beaconfire_drain_remaining", "Sessions that a drain has not closed yet."),
    # traffic
    _counter("beaconfire_messages_received_total", "Protocol messages received from clients."),
    _counter("beaconfire_bytes_received_total", "Bytes of the protocol messages received from clients.", unit="bytes"),
    _counter("beaconfire_messages_sent_total", "Protocol messages sent to clients."),
    _counter("beaconfire_bytes_sent_total", "Bytes of the protocol messages sent to clients.", unit="bytes"),
    _counter(
        "beaconfire_writes_total",
        "Writes to the network. The ratio of messages to writes shows the effect of batching.",
    ),
    _counter("beaconfire_patches_sent_total", "Publications sent to live subscriptions as a patch."),
    _counter(
        "beaconfire_publications_filtered_total",
        "Publications not sent to live subscriptions because of their tags filter.",
    ),
    _counter(
        "beaconfire_publications_conflated_total",
        "Publications not sent to conflating live subscriptions because a newer one replaced them.",
    ),
    # connections and sessions
    _counter("beaconfire_connections_opened_total", "Connections opened.", "transport", "protocol"),
    _counter("beaconfire_handshakes_refused_total", "WebSocket upgrades answered with an HTTP error.", "reason"),
    _counter(
        "beaconfire_sessions_connected_total", "Sessions authenticated, by the name of the SDK.", "protocol", "name"
    ),
    _counter(
        "beaconfire_disconnects_total", "Sessions ended, by disconnect code. Slow sessions end with 3008.", "code"
    ),
    # commands and API calls
    _counter("beaconfire_commands_total", "Client commands handled. Error 0 is success.", "method", "error"),
    _histogram(
        "beaconfire_command_duration_seconds", "Duration of a client command.", _COMMAND_S, "method", unit="seconds"
    ),
    _counter("beaconfire_api_calls_total", "Server API calls handled. Error 0 is success.", "method", "error"),
    _histogram(
        "beaconfire_api_call_duration_seconds", "Duration of a server API call.", _COMMAND_S, "method", unit="seconds"
    ),
    # channels
    _counter("beaconfire_subscriptions_started_total", "Subscriptions started.", "namespace"),
    _counter("beaconfire_unsubscriptions_total", "Subscriptions ended, by unsubscribe code.", "code"),
    _counter(
        "beaconfire_recoveries_total",
        "Recoveries. The label recovered is true if no publication was lost.",
        "recovered",
        "namespace",
    ),
    _counter("beaconfire_recovered_publications_total", "Publications delivered by recovery.", "namespace"),
    _counter(
        "beaconfire_history_reads_requested_total",
        "Reads of history that subscriptions needed to start or to recover. Not counted for the memory engine.",
    ),
    _counter(
        "beaconfire_history_reads_total",
        "Calls of the engine for these reads. Subscriptions of a channel that ask at about the same time share a read.",
    ),
    _counter("beaconfire_publications_total", "Publications fanned out on this node.", "namespace"),
    _counter(
        "beaconfire_deliveries_total",
        "Deliveries of publications to the outboxes of sessions.",
        "namespace",
    ),
    _histogram(
        "beaconfire_fanout_duration_seconds",
        "Time to add one batch to the outboxes of all subscribers.",
        _FANOUT_S,
        unit="seconds",
    ),
    _histogram("beaconfire_fanout_batch_publications", "Publications in one batch of a channel.", _PUBLICATIONS),
    _histogram("beaconfire_fanout_batch_subscribers", "Sessions that got one batch.", _SUBSCRIBERS),
    _counter(
        "beaconfire_channels_healed_total",
        "Channels of which this node had missed publications. The label bridged is true if history had all of them, "
        "and false if subscribers were told.",
        "bridged",
    ),
    _counter(
        "beaconfire_revocations_applied_total",
        "Sessions and subscriptions that ended because their token was revoked, and revoked tokens that were refused.",
        "kind",
    ),
    _counter(
        "beaconfire_resume_tickets_total",
        "Resume tickets that clients have sent. The label kind is connection or subscription. The label outcome is "
        "accepted, or the reason for which the ticket counted as absent.",
        "kind",
        "outcome",
    ),
    # limits, errors and dependencies
    _histogram(
        "beaconfire_loop_lateness_seconds",
        "How late the event loop ran a timer, measured ten times per second. Every client waits as long.",
        _LATE_S,
        unit="seconds",
    ),
    _counter("beaconfire_limit_hits_total", "How often a limit took effect, by the name of its setting.", "limit"),
    _counter(
        "beaconfire_internal_errors_total", "Unexpected errors of the server. The log has the traceback.", "where"
    ),
    _counter(
        "beaconfire_work_dropped_total",
        "Background work given up because the engine has failed for too long: announcements of joins and leaves, "
        "subscriptions at the request of the server API, and work that was left at shutdown.",
        "work",
    ),
    _counter(
        "beaconfire_engine_failures_total",
        "Failed calls of the engine. The reason is timeout, unavailable, defect, not_replicated or storage_full.",
        "call",
        "reason",
    ),
    _counter(
        "beaconfire_storage_opened_total",
        "How often the engine has opened its file: at the start, and after each I/O error.",
    ),
    _counter(
        "beaconfire_engine_connections_total",
        "How often the engine has connected to a server: at the start, and after each loss.",
    ),
    _counter(
        "beaconfire_migration_failures_total",
        "How often the new engine of a migration has failed. Until it works again, only the old one is used.",
    ),
    _counter(
        "beaconfire_migration_differences_total", "Channels in which verifications of a migration found differences."
    ),
    _counter(
        "beaconfire_token_key_fetches_total", "Fetches of the JSON Web Key Set. The outcome is ok or error.", "outcome"
    ),
    _gauge("beaconfire_token_keys", "Keys in the JSON Web Key Set that was fetched last."),
)

NODE_METRICS = {
    "connections": "beaconfire_connections",
    "sessions": "beaconfire_sessions",
    "users": "beaconfire_users",
    "channels": "beaconfire_channels",
    "subscriptions": "beaconfire_subscriptions",
    "queue_bytes": "beaconfire_queue_bytes",
    "history_publications": "beaconfire_history_publications",
    "history_bytes": "beaconfire_history_bytes",
    "engine_up": "beaconfire_engine_up",
    "migration_waiting": "beaconfire_migration_waiting",
    "migration_read_percent": "beaconfire_migration_read_percent",
    "revocations": "beaconfire_revocations",
    "messages_in_total": "beaconfire_messages_received_total",
    "bytes_in_total": "beaconfire_bytes_received_total",
    "messages_out_total": "beaconfire_messages_sent_total",
    "bytes_out_total": "beaconfire_bytes_sent_total",
    "writes_total": "beaconfire_writes_total",
    "patches_total": "beaconfire_patches_sent_total",
    "filtered_total": "beaconfire_publications_filtered_total",
    "conflated_total": "beaconfire_publications_conflated_total",
    "reads_requested_total": "beaconfire_history_reads_requested_total",
    "reads_total": "beaconfire_history_reads_total",
}
"""The metric of each field of `NodeStatistics`. These metrics are read at each scrape, not counted by events."""
