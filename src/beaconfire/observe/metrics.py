"""Counts events as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any, Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from beaconfire import __version__
from beaconfire.model import events
from beaconfire.observe.metric_table import (
    API_METHODS,
    DISCONNECT_CODES,
    DROPPED_WORK,
    ERROR_CODES,
    HANDSHAKE_REASONS,
    HTTP_METHODS,
    LIMITS,
    METRICS,
    NODE_METRICS,
    OTHER,
    REVOKED,
    SDK_NAMES,
    TICKET_KINDS,
    TICKET_OUTCOMES,
    UNSUBSCRIBE_CODES,
    Metric,
)
from beaconfire.observe.send_queues import send_queue_bytes
from beaconfire.observe.series import Distribution, Families, Number

_CACHE_SIZE_MAX = 4096
"""Entries of each cache from the fields of an event to its series. Beyond it, series are looked up by their labels."""


_KNOWN_LABELS: Final[Mapping[str, Iterable[tuple[str, ...]]]] = {
    "limit_hits": [(limit,) for limit in LIMITS],
    "handshakes_refused": [(reason,) for reason in HANDSHAKE_REASONS],
    "disconnects": [(code,) for code in DISCONNECT_CODES.values()],
    "unsubscriptions": [(code,) for code in UNSUBSCRIBE_CODES.values()],
    "channels_healed": [("true",), ("false",)],
    "work_dropped": [(work,) for work in DROPPED_WORK],
    "revocations_applied": [(kind,) for kind in REVOKED],
    "resume_tickets": [*product(TICKET_KINDS, TICKET_OUTCOMES)],
    "token_key_fetches": [("ok",), ("error",)],
}
"""The series that exist from the start: counters by label values. A rate needs a first value of 0."""


class MetricsSink:
    """Counts events. All methods, including scrapes, run on the thread of the event loop.

    Each sink has its own registry, with the process, platform and garbage collector metrics of `prometheus_client`, so
    that one process may have several sinks. `namespaces` are the configured ones: their series begin at zero, because
    Prometheus does not notice an increase of a series that begins at one.
    """

    content_type: Final = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, namespaces: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry()
        self._families = families = Families(METRICS, self._read_node)
        self._source: Callable[[], events.NodeStatistics] | None = None
        self._node = {field: families.numbers(name).series() for field, name in NODE_METRICS.items()}
        self._commands: dict[tuple[str, int], tuple[Number, Distribution]] = {}
        self._api_calls: dict[tuple[str, int], tuple[Number, Distribution]] = {}
        self._requests: dict[tuple[str, str, int], tuple[Number, Distribution]] = {}
        self._fanned_out: dict[str, tuple[Number, Number]] = {}
        self._fanout_duration = families.distributions("beaconfire_fanout_duration_seconds").series()
        self._fanout_publications = families.distributions("beaconfire_fanout_batch_publications").series()
        self._loop_lateness = families.distributions("beaconfire_loop_lateness_seconds").series()
        self._fanout_subscribers = families.distributions("beaconfire_fanout_batch_subscribers").series()
        # Any: each handler takes the one event type it is registered for.
        self._handlers: dict[type, Callable[[Any], None]] = {
            events.ConnectionOpened: self._connection_opened,
            events.SessionConnected: self._session_connected,
            events.SessionEnded: self._session_ended,
            events.CommandHandled: self._command_handled,
            events.ApiCallHandled: self._api_call_handled,
            events.Subscribed: self._subscribed,
            events.Unsubscribed: self._unsubscribed,
            events.RecoveryFinished: self._recovery_finished,
            events.BatchFannedOut: self._batch_fanned_out,
            events.LimitHit: self._limit_hit,
            events.HandshakeRefused: self._handshake_refused,
            events.DrainAdvanced: self._drain_advanced,
            events.TokenKeysFetched: self._token_keys_fetched,
            events.ChannelHealed: self._channel_healed,
            events.WorkDropped: self._work_dropped,
            events.EngineCallFailed: self._engine_call_failed,
            events.EngineStateChanged: self._engine_state_changed,
            events.HubConnectionEnded: self._hub_connection_ended,
            events.StorageOpened: self._storage_opened,
            events.EngineConnected: self._engine_connected,
            events.MigrationProgressed: self._migration_progressed,
            events.MigrationFailed: self._migration_failed,
            events.MigrationReadChanged: self._migration_read_changed,
            events.TokensRevoked: self._tokens_revoked,
            events.RevocationApplied: self._revocation_applied,
            events.TicketChecked: self._ticket_checked,
            events.LoopMeasured: self._loop_measured,
            events.InternalError: self._internal_error,
        }
        self._create_series(("", *namespaces))
        self.registry.register(families)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    # --- counting ---

    def emit(self, event: events.Event) -> None:
        self._handlers[type(event)](event)

    def handler(self, kind: type[events.Event]) -> Callable[[Any], None]:
        """Implements `events.SelectiveSink`: every event is counted."""
        return self._handlers[kind]

    def set_statistics_source(self, source: Callable[[], events.NodeStatistics]) -> None:
        """At each scrape, the metrics of the node are read from `source`. A later call replaces the source."""
        self._source = source

    def count_request(self, method: str, path: str, status: int, duration_s: float) -> None:
        """Counts one HTTP request. `path` must be a route template, because it becomes a label."""
        found = self._requests.get((method, path, status))
        if found is None:
            label = method if method in HTTP_METHODS else OTHER
            found = (
                self._families.numbers("http_requests_total").series(label, path, str(status)),
                self._families.distributions("request_duration_seconds").series(label, path),
            )
            if len(self._requests) < _CACHE_SIZE_MAX:
                self._requests[method, path, status] = found
        found[0].value += 1
        found[1].observe(duration_s)

    # --- scraping ---

    def exposition(self) -> bytes:
        """All metrics in the text format of Prometheus, whose content type is `content_type`."""
        return generate_latest(self.registry)

    async def measure(self) -> bytes:
        """Measures what takes longer than reading a number, and returns the exposition."""
        self._families.numbers("beaconfire_send_queue_bytes").series().value = await send_queue_bytes()
        return self.exposition()

    async def endpoint(self, request: Request) -> Response:
        """`/metrics`, as a Starlette endpoint."""
        return metrics_response(await self.measure())

    # --- one method per event ---

    def _connection_opened(self, event: events.ConnectionOpened) -> None:
        self._count("beaconfire_connections_opened_total", event.transport, event.protocol)

    def _session_connected(self, event: events.SessionConnected) -> None:
        name = event.name if event.name in SDK_NAMES else OTHER
        self._count("beaconfire_sessions_connected_total", event.protocol, name)

    def _session_ended(self, event: events.SessionEnded) -> None:
        self._count("beaconfire_disconnects_total", DISCONNECT_CODES.get(event.code, OTHER))

    def _command_handled(self, event: events.CommandHandled) -> None:
        key = (event.method, event.error)
        found = self._commands.get(key)
        if found is None:
            found = (
                self._families.numbers("beaconfire_commands_total").series(
                    event.method, ERROR_CODES.get(event.error, OTHER)
                ),
                self._families.distributions("beaconfire_command_duration_seconds").series(event.method),
            )
            if len(self._commands) < _CACHE_SIZE_MAX:
                self._commands[key] = found
        found[0].value += 1
        found[1].observe(event.duration_s)

    def _api_call_handled(self, event: events.ApiCallHandled) -> None:
        key = (event.method, event.error)
        found = self._api_calls.get(key)
        if found is None:
            # The method is a part of the URL, so clients can send any text.
            method = event.method if event.method in API_METHODS else OTHER
            found = (
                self._families.numbers("beaconfire_api_calls_total").series(
                    method, ERROR_CODES.get(event.error, OTHER)
                ),
                self._families.distributions("beaconfire_api_call_duration_seconds").series(method),
            )
            if len(self._api_calls) < _CACHE_SIZE_MAX:
                self._api_calls[key] = found
        found[0].value += 1
        found[1].observe(event.duration_s)

    def _subscribed(self, event: events.Subscribed) -> None:
        self._count("beaconfire_subscriptions_started_total", event.namespace)

    def _unsubscribed(self, event: events.Unsubscribed) -> None:
        self._count("beaconfire_unsubscriptions_total", UNSUBSCRIBE_CODES.get(event.code, OTHER))

    def _recovery_finished(self, event: events.RecoveryFinished) -> None:
        self._count("beaconfire_recoveries_total", "true" if event.recovered else "false", event.namespace)
        recovered = self._families.numbers("beaconfire_recovered_publications_total").series(event.namespace)
        recovered.value += event.publications

    def _batch_fanned_out(self, event: events.BatchFannedOut) -> None:
        found = self._fanned_out.get(event.namespace)
        if found is None:
            found = self._fanned_out[event.namespace] = (
                self._families.numbers("beaconfire_publications_total").series(event.namespace),
                self._families.numbers("beaconfire_deliveries_total").series(event.namespace),
            )
        publications = event.publications
        subscribers = event.subscribers
        found[0].value += publications
        found[1].value += publications * subscribers
        self._fanout_duration.observe(event.duration_s)
        self._fanout_publications.observe(publications)
        self._fanout_subscribers.observe(subscribers)

    def _limit_hit(self, event: events.LimitHit) -> None:
        self._count("beaconfire_limit_hits_total", event.limit)

    def _handshake_refused(self, event: events.HandshakeRefused) -> None:
        self._count("beaconfire_handshakes_refused_total", event.reason)

    def _drain_advanced(self, event: events.DrainAdvanced) -> None:
        self._families.numbers("beaconfire_draining").series().value = 1
        self._families.numbers("beaconfire_drain_remaining").series().value = event.remaining

    def _token_keys_fetched(self, event: events.TokenKeysFetched) -> None:
        self._count("beaconfire_token_key_fetches_total", "error" if event.error else "ok")
        if not event.error:
            self._families.numbers("beaconfire_token_keys").series().value = event.keys

    def _channel_healed(self, event: events.ChannelHealed) -> None:
        self._count("beaconfire_channels_healed_total", "true" if event.bridged else "false")

    def _work_dropped(self, event: events.WorkDropped) -> None:
        self._families.numbers("beaconfire_work_dropped_total").series(event.work).value += event.count

    def _engine_call_failed(self, event: events.EngineCallFailed) -> None:
        self._count("beaconfire_engine_failures_total", event.call, event.reason)

    def _engine_state_changed(self, event: events.EngineStateChanged) -> None:
        """Counts nothing: `beaconfire_engine_up` is read at each scrape."""

    def _hub_connection_ended(self, event: events.HubConnectionEnded) -> None:
        """Counts nothing: limits and lost links are counted where they happen."""

    def _storage_opened(self, event: events.StorageOpened) -> None:
        self._count("beaconfire_storage_opened_total")

    def _engine_connected(self, event: events.EngineConnected) -> None:
        self._count("beaconfire_engine_connections_total")

    def _migration_progressed(self, event: events.MigrationProgressed) -> None:
        self._families.numbers("beaconfire_migration_differences_total").series().value += event.different

    def _migration_failed(self, event: events.MigrationFailed) -> None:
        self._count("beaconfire_migration_failures_total")

    def _migration_read_changed(self, event: events.MigrationReadChanged) -> None:
        """Counts nothing: `beaconfire_migration_read_percent` is read at each scrape."""

    def _tokens_revoked(self, event: events.TokensRevoked) -> None:
        """Counts nothing: API calls are counted by method."""

    def _revocation_applied(self, event: events.RevocationApplied) -> None:
        self._count("beaconfire_revocations_applied_total", event.kind)

    def _ticket_checked(self, event: events.TicketChecked) -> None:
        self._count("beaconfire_resume_tickets_total", event.kind, event.outcome)

    def _loop_measured(self, event: events.LoopMeasured) -> None:
        self._loop_lateness.observe(event.late_s)

    def _internal_error(self, event: events.InternalError) -> None:
        self._count("beaconfire_internal_errors_total", event.where)

    # --- helpers ---

    def _count(self, name: str, *labels: str) -> None:
        self._families.numbers(name).series(*labels).value += 1

    def _read_node(self) -> None:
        if self._source is not None:
            statistics = self._source()
            for field, number in self._node.items():
                number.value = getattr(statistics, field)

    def _create_series(self, namespaces: Iterable[str]) -> None:
        numbers = self._families.numbers
        numbers("beaconfire_build_info").series(__version__).value = 1
        for name, label_values in _KNOWN_LABELS.items():
            for values in label_values:
                numbers(f"beaconfire_{name}_total").series(*values)
        for namespace in namespaces:
            for recovered in ("true", "false"):
                numbers("beaconfire_recoveries_total").series(recovered, namespace)
            for name in ("subscriptions_started", "recovered_publications", "publications", "deliveries"):
                numbers(f"beaconfire_{name}_total").series(namespace)


def metrics_response(exposition: bytes) -> Response:
    return Response(exposition, media_type=MetricsSink.content_type, headers={"Cache-Control": "no-store"})


__all__ = ["METRICS", "Metric", "MetricsSink", "metrics_response"]
