"""Published names and labels, the effect of each event, and bounds on the number of series."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request

import beaconfire
from beaconfire import __version__
from beaconfire.base.errors import DISCONNECTS, ERRORS, UNSUBSCRIBES
from beaconfire.config import Config
from beaconfire.model import events
from beaconfire.observe.metric_table import LIMITS, NODE_METRICS
from beaconfire.observe.metrics import METRICS, MetricsSink

NAMES = {
    "beaconfire_worker_up": ("gauge", ("worker",)),
    "beaconfire_worker_restarts_total": ("counter", ("worker",)),
    "http_requests_total": ("counter", ("method", "path", "status")),
    "request_duration_seconds": ("histogram", ("method", "path")),
    "beaconfire_build_info": ("gauge", ("version",)),
    "beaconfire_connections": ("gauge", ()),
    "beaconfire_sessions": ("gauge", ()),
    "beaconfire_users": ("gauge", ()),
    "beaconfire_channels": ("gauge", ()),
    "beaconfire_subscriptions": ("gauge", ()),
    "beaconfire_queue_bytes": ("gauge", ()),
    "beaconfire_send_queue_bytes": ("gauge", ()),
    "beaconfire_history_publications": ("gauge", ()),
    "beaconfire_history_bytes": ("gauge", ()),
    "beaconfire_draining": ("gauge", ()),
    "beaconfire_drain_remaining": ("gauge", ()),
    "beaconfire_messages_received_total": ("counter", ()),
    "beaconfire_bytes_received_total": ("counter", ()),
    "beaconfire_messages_sent_total": ("counter", ()),
    "beaconfire_bytes_sent_total": ("counter", ()),
    "beaconfire_writes_total": ("counter", ()),
    "beaconfire_patches_sent_total": ("counter", ()),
    "beaconfire_publications_filtered_total": ("counter", ()),
    "beaconfire_publications_conflated_total": ("counter", ()),
    "beaconfire_connections_opened_total": ("counter", ("transport", "protocol")),
    "beaconfire_handshakes_refused_total": ("counter", ("reason",)),
    "beaconfire_sessions_connected_total": ("counter", ("protocol", "name")),
    "beaconfire_disconnects_total": ("counter", ("code",)),
    "beaconfire_commands_total": ("counter", ("method", "error")),
    "beaconfire_command_duration_seconds": ("histogram", ("method",)),
    "beaconfire_api_calls_total": ("counter", ("method", "error")),
    "beaconfire_api_call_duration_seconds": ("histogram", ("method",)),
    "beaconfire_subscriptions_started_total": ("counter", ("namespace",)),
    "beaconfire_unsubscriptions_total": ("counter", ("code",)),
    "beaconfire_recoveries_total": ("counter", ("recovered", "namespace")),
    "beaconfire_recovered_publications_total": ("counter", ("namespace",)),
    "beaconfire_publications_total": ("counter", ("namespace",)),
    "beaconfire_deliveries_total": ("counter", ("namespace",)),
    "beaconfire_fanout_duration_seconds": ("histogram", ()),
    "beaconfire_fanout_batch_publications": ("histogram", ()),
    "beaconfire_fanout_batch_subscribers": ("histogram", ()),
    "beaconfire_limit_hits_total": ("counter", ("limit",)),
    "beaconfire_loop_lateness_seconds": ("histogram", ()),
    "beaconfire_history_reads_requested_total": ("counter", ()),
    "beaconfire_history_reads_total": ("counter", ()),
    "beaconfire_internal_errors_total": ("counter", ("where",)),
    "beaconfire_engine_up": ("gauge", ()),
    "beaconfire_engine_failures_total": ("counter", ("call", "reason")),
    "beaconfire_storage_opened_total": ("counter", ()),
    "beaconfire_engine_connections_total": ("counter", ()),
    "beaconfire_channels_healed_total": ("counter", ("bridged",)),
    "beaconfire_work_dropped_total": ("counter", ("work",)),
    "beaconfire_token_key_fetches_total": ("counter", ("outcome",)),
    "beaconfire_token_keys": ("gauge", ()),
    "beaconfire_migration_waiting": ("gauge", ()),
    "beaconfire_migration_read_percent": ("gauge", ()),
    "beaconfire_migration_failures_total": ("counter", ()),
    "beaconfire_migration_differences_total": ("counter", ()),
    "beaconfire_revocations": ("gauge", ()),
    "beaconfire_revocations_applied_total": ("counter", ("kind",)),
    "beaconfire_resume_tickets_total": ("counter", ("kind", "outcome")),
}
"""Dashboards and alerts of users depend on these names. Metrics may be added, but not renamed."""


def samples(sink: MetricsSink) -> dict[str, float]:
    """All samples of an exposition, by `name{label=value,…}` with labels sorted and without quotes."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(sink.exposition().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def session_connected(name: str = "js", protocol: str = "centrifuge-json") -> events.SessionConnected:
    return events.SessionConnected("client", "ann", "websocket", protocol, name, "5.7.1")


def session_ended(code: int) -> events.SessionEnded:
    return events.SessionEnded("client", "ann", "websocket", "plain", code, "", "", 1.0)


def test_names_kinds_and_labels_are_the_published_ones() -> None:
    """The test fails if a metric is renamed or removed, or if its labels change."""
    assert {metric.name: (metric.kind, metric.labels) for metric in METRICS} == NAMES


def test_names_follow_the_naming_rules() -> None:
    """Counters end in _total, durations in _seconds, and every metric has a description that is a sentence."""
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.name.endswith("_seconds") == (metric.unit == "seconds"), metric.name
        assert (metric.unit == "bytes") == ("bytes" in metric.name), metric.name
        assert metric.help.endswith("."), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.name
        assert list(metric.buckets) == sorted(set(metric.buckets)), metric.name


def test_no_two_metrics_share_a_family() -> None:
    """A gauge `x` and a counter `x_total` are one family in OpenMetrics, so they must not both exist."""
    families = [metric.name.removesuffix("_total") for metric in METRICS]
    assert len(families) == len(set(families))


def test_every_metric_is_exposed() -> None:
    """Each metric of the table is in the exposition, with its type and help."""
    text = MetricsSink().exposition().decode()
    for metric in METRICS:
        assert f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n" in text


def test_process_platform_and_garbage_collector_are_exposed() -> None:
    """The exposition contains the usual metrics of a Python process."""
    found = samples(MetricsSink())
    assert found["process_resident_memory_bytes"] > 0
    assert "python_gc_collections_total{generation=0}" in found
    assert any(name.startswith("python_info{") for name in found)


def test_sinks_are_independent() -> None:
    """Two servers in one process count separately."""
    one, other = MetricsSink(), MetricsSink()
    one.emit(session_ended(3008))
    assert samples(one)["beaconfire_disconnects_total{code=3008}"] == 1
    assert samples(other)["beaconfire_disconnects_total{code=3008}"] == 0


def test_every_event_is_counted() -> None:
    """The sink must handle every type of event: an unknown type would raise in `emit`."""
    sink = MetricsSink()
    examples: list[events.Event] = [
        events.ConnectionOpened("websocket", "plain", "client"),
        session_connected(),
        session_ended(3000),
        events.CommandHandled("client", "ann", "publish", "small", 0.0002, 0, ""),
        events.ApiCallHandled("publish", 0.001, 102),
        events.Subscribed("client", "small:1", "small"),
        events.Unsubscribed("client", "small:1", "small", 2500),
        events.RecoveryFinished("small:1", "small", True, 5),
        events.BatchFannedOut("small", 3, 1000, 0.002),
        events.LimitHit("client.queue_max_size", "client"),
        events.HandshakeRefused("/ws", 403, "origin"),
        events.DrainAdvanced("closing", 7),
        events.TokenKeysFetched(2, ""),
        events.EngineCallFailed("publish", "timeout"),
        events.EngineStateChanged("redis", False, "no connection"),
        events.StorageOpened("history.db", "sqlite 3.40.1", False, ""),
        events.EngineConnected("redis", "redis 7.0.15", "10.0.0.1:6379", ""),
        events.MigrationProgressed("verified", 100, 2),
        events.MigrationFailed("the disk is full"),
        events.MigrationReadChanged(50.0),
        events.ChannelHealed("small", True, 3),
        events.ChannelHealed("small", False, 0),
        events.WorkDropped("announcements", 3, "detail"),
        events.TokensRevoked("ann", "", 1.0),
        events.RevocationApplied("session"),
        events.TicketChecked("connection", "expired"),
        events.LoopMeasured(0.02),
        events.HubConnectionEnded("node-1", "reason"),
        events.InternalError("hub", "Traceback"),
    ]
    assert {type(event) for event in examples} == set(get_args(events.Event))
    before = samples(sink)
    for event in examples:
        sink.emit(event)
    after = samples(sink)
    changed = {name: after[name] for name in after if after[name] != before.get(name, 0)}
    assert {name: value for name, value in changed.items() if not re.match(r"process_|python_|.*_bucket", name)} == {
        "beaconfire_connections_opened_total{protocol=plain,transport=websocket}": 1,
        "beaconfire_sessions_connected_total{name=js,protocol=centrifuge-json}": 1,
        "beaconfire_disconnects_total{code=3000}": 1,
        "beaconfire_commands_total{error=0,method=publish}": 1,
        "beaconfire_command_duration_seconds_count{method=publish}": 1,
        "beaconfire_command_duration_seconds_sum{method=publish}": 0.0002,
        "beaconfire_api_calls_total{error=102,method=publish}": 1,
        "beaconfire_api_call_duration_seconds_count{method=publish}": 1,
        "beaconfire_api_call_duration_seconds_sum{method=publish}": 0.001,
        "beaconfire_subscriptions_started_total{namespace=small}": 1,
        "beaconfire_unsubscriptions_total{code=2500}": 1,
        "beaconfire_migration_differences_total": 2,
        "beaconfire_migration_failures_total": 1,
        "beaconfire_revocations_applied_total{kind=session}": 1,
        "beaconfire_resume_tickets_total{kind=connection,outcome=expired}": 1,
        "beaconfire_recoveries_total{namespace=small,recovered=true}": 1,
        "beaconfire_recovered_publications_total{namespace=small}": 5,
        "beaconfire_publications_total{namespace=small}": 3,
        "beaconfire_deliveries_total{namespace=small}": 3000,
        "beaconfire_fanout_duration_seconds_count": 1,
        "beaconfire_fanout_duration_seconds_sum": 0.002,
        "beaconfire_fanout_batch_publications_count": 1,
        "beaconfire_fanout_batch_publications_sum": 3,
        "beaconfire_fanout_batch_subscribers_count": 1,
        "beaconfire_fanout_batch_subscribers_sum": 1000,
        "beaconfire_loop_lateness_seconds_count": 1,
        "beaconfire_loop_lateness_seconds_sum": 0.02,
        "beaconfire_limit_hits_total{limit=client.queue_max_size}": 1,
        "beaconfire_handshakes_refused_total{reason=origin}": 1,
        "beaconfire_draining": 1,
        "beaconfire_drain_remaining": 7,
        "beaconfire_token_key_fetches_total{outcome=ok}": 1,
        "beaconfire_token_keys": 2,
        "beaconfire_engine_failures_total{call=publish,reason=timeout}": 1,
        "beaconfire_storage_opened_total": 1,
        "beaconfire_engine_connections_total": 1,
        "beaconfire_channels_healed_total{bridged=true}": 1,
        "beaconfire_channels_healed_total{bridged=false}": 1,
        "beaconfire_work_dropped_total{work=announcements}": 3,
        "beaconfire_internal_errors_total{where=hub}": 1,
    }


def test_histogram_buckets_are_cumulative_and_include_their_bound() -> None:
    """Prometheus defines `le` so: each bucket counts all values up to and including its bound."""
    sink = MetricsSink()
    for subscribers in (0, 1, 2, 3, 200_000):
        sink.emit(events.BatchFannedOut("", 1, subscribers, 0.001))
    found = samples(sink)
    bucket = "beaconfire_fanout_batch_subscribers_bucket"
    assert [found[f"{bucket}{{le={bound}}}"] for bound in ("0.0", "1.0", "3.0", "10.0", "100000.0", "+Inf")] == [
        *(1, 2, 4, 4, 4, 5)
    ]
    assert found["beaconfire_fanout_batch_subscribers_count"] == 5
    assert found["beaconfire_fanout_batch_subscribers_sum"] == 200_006


def test_repeated_events_add_up() -> None:
    """The cached series of the first event counts later events, too, each in its own series."""
    sink = MetricsSink()
    for error in (0, 0, 103):
        sink.emit(events.CommandHandled("client", "ann", "subscribe", "", 0.01, error, ""))
    sink.emit(events.ApiCallHandled("publish", 0.01, 0))
    sink.emit(events.ApiCallHandled("publish", 0.02, 0))
    found = samples(sink)
    assert found["beaconfire_commands_total{error=0,method=subscribe}"] == 2
    assert found["beaconfire_commands_total{error=103,method=subscribe}"] == 1
    assert found["beaconfire_command_duration_seconds_count{method=subscribe}"] == 3
    assert found["beaconfire_api_calls_total{error=0,method=publish}"] == 2
    assert found["beaconfire_api_call_duration_seconds_sum{method=publish}"] == pytest.approx(0.03)


def test_failed_key_fetch_keeps_the_number_of_keys() -> None:
    """While fetches fail, the last key set is still in use."""
    sink = MetricsSink()
    sink.emit(events.TokenKeysFetched(3, ""))
    sink.emit(events.TokenKeysFetched(0, "timed out"))
    found = samples(sink)
    assert found["beaconfire_token_keys"] == 3
    assert found["beaconfire_token_key_fetches_total{outcome=error}"] == 1


def test_series_of_closed_sets_begin_at_zero() -> None:
    """Prometheus must see the first hit of a limit, the first slow session or lost recovery as an increase."""
    found = samples(MetricsSink(["small"]))
    zero = [
        *(f"beaconfire_limit_hits_total{{limit={limit}}}" for limit in LIMITS),
        *(f"beaconfire_disconnects_total{{code={code.code}}}" for code in DISCONNECTS),
        *(f"beaconfire_unsubscriptions_total{{code={code.code}}}" for code in UNSUBSCRIBES),
        *(f"beaconfire_handshakes_refused_total{{reason={r}}}" for r in ("origin", "limit", "rate", "draining", "bad")),
        *(
            f"beaconfire_recoveries_total{{namespace={namespace},recovered={recovered}}}"
            for namespace in ("", "small")
            for recovered in ("true", "false")
        ),
        "beaconfire_token_key_fetches_total{outcome=error}",
        "beaconfire_publications_total{namespace=small}",
    ]
    assert {name: found[name] for name in zero} == dict.fromkeys(zero, 0)
    assert found[f"beaconfire_build_info{{version={__version__}}}"] == 1


def test_limits_have_the_names_of_settings() -> None:
    """An operator who sees a limit in a metric finds the setting by this name."""
    sections = Config()
    fixed = {
        "http_pipeline_max",
        "body_pause_max",
        "poll_commands_max",
        "token_length_max",
        "ticket_length_max",
        "jwks_unknown_kids_max",
        "tags_filter_depth_max",
        "announcements_waiting_max",
        "ended_waiting_max",
        "revocations_max",
        "storage_waiting_max",
        "hub_frame_max",
        "hub_output_max",
        "hub_calls_max",
        "hub_hello_timeout",
        "forwarded_commands_max",
    }
    for limit in set(LIMITS) - fixed:
        section, name = limit.split(".")
        assert hasattr(getattr(sections, section), name), limit


def test_limits_named_in_the_code_are_in_the_table() -> None:
    """The series of a limit that is missing in the table would not begin at zero."""
    source = Path(beaconfire.__file__).parent
    named = {
        limit
        for file in source.rglob("*.py")
        for limit in re.findall(r'LimitHit\(\s*"([^"]+)"', file.read_text("utf-8"))
    }
    assert named <= set(LIMITS)
    assert named


def test_node_statistics_are_read_at_each_scrape() -> None:
    """Each field of the statistics is in its own metric, with the value at the time of the scrape."""
    sink = MetricsSink()
    now = events.NodeStatistics()
    sink.set_statistics_source(lambda: now)
    assert samples(sink)["beaconfire_connections"] == 0
    now = events.NodeStatistics(
        **{field: number for number, field in enumerate(events.NodeStatistics.__struct_fields__, 1)}
    )
    found = samples(sink)
    assert [found[NODE_METRICS[field]] for field in events.NodeStatistics.__struct_fields__] == [
        *range(1, len(NODE_METRICS) + 1)
    ]


def test_sdk_names_are_bounded() -> None:
    """The name of a client is counted as a known SDK or as `other`, whatever the client sends."""
    sink = MetricsSink()
    for number in range(3000):
        sink.emit(session_connected(f"evil-{number}"))
    for name in ("js", "python", "go", "dart", "swift", "java", "csharp", ""):
        sink.emit(session_connected(name))
    found = {key: value for key, value in samples(sink).items() if "sessions_connected" in key}
    assert len(found) == 8
    assert found["beaconfire_sessions_connected_total{name=other,protocol=centrifuge-json}"] == 3001


def test_codes_and_api_methods_are_bounded() -> None:
    """Codes that an application chooses, and methods in URLs, do not become labels."""
    sink = MetricsSink()
    for number in range(4000, 4999):
        sink.emit(session_ended(number))
        sink.emit(events.ApiCallHandled(f"method{number}", 0.001, 104))
        sink.emit(events.CommandHandled("client", "", "rpc", "", 0.001, number, ""))
        sink.emit(events.Unsubscribed("client", "channel", "", number))
    found = samples(sink)
    assert found["beaconfire_disconnects_total{code=other}"] == 999
    assert found["beaconfire_api_calls_total{error=104,method=other}"] == 999
    assert found["beaconfire_commands_total{error=other,method=rpc}"] == 999
    assert found["beaconfire_unsubscriptions_total{code=other}"] == 999
    assert len([name for name in found if name.startswith("beaconfire_disconnects_total")]) == len(DISCONNECTS) + 1


def test_known_error_codes_are_labels() -> None:
    """Each error and each disconnect of the tables has its own label value."""
    sink = MetricsSink()
    codes = [*(error.code for error in ERRORS), *(disconnect.code for disconnect in DISCONNECTS)]
    for code in codes:
        sink.emit(events.CommandHandled("client", "", "rpc", "", 0.001, code, ""))
    found = samples(sink)
    assert [found[f"beaconfire_commands_total{{error={code},method=rpc}}"] for code in codes] == [1] * len(codes)


def test_series_of_a_metric_are_bounded() -> None:
    """If a label has more values than expected, memory stays bounded, and further values are counted as `other`."""
    sink = MetricsSink()
    for number in range(1500):
        sink.emit(events.CommandHandled("client", "", f"method{number}", "", 0.001, 0, ""))
        sink.count_request("GET", f"/{number}", 200, 0.001)
    found = samples(sink)
    commands = {name: value for name, value in found.items() if name.startswith("beaconfire_commands_total")}
    assert len(commands) == 1001
    assert sum(commands.values()) == 1500
    assert found["http_requests_total{method=other,path=other,status=other}"] == 500


def test_requests_are_counted_and_timed() -> None:
    """Requests are counted by method, route and status; durations by method and route."""
    sink = MetricsSink()
    sink.count_request("POST", "/api/publish", 200, 0.25)
    sink.count_request("POST", "/api/publish", 200, 0.5)
    sink.count_request("POST", "/api/publish", 401, 0.01)
    sink.count_request("BREW", "/api/publish", 405, 0.01)
    found = samples(sink)
    assert found["http_requests_total{method=POST,path=/api/publish,status=200}"] == 2
    assert found["http_requests_total{method=POST,path=/api/publish,status=401}"] == 1
    assert found["http_requests_total{method=other,path=/api/publish,status=405}"] == 1
    assert found["request_duration_seconds_sum{method=POST,path=/api/publish}"] == pytest.approx(0.76)
    assert found["request_duration_seconds_bucket{le=0.25,method=POST,path=/api/publish}"] == 2


def test_endpoint_serves_the_exposition() -> None:
    """`/metrics` returns the text format with its content type, and forbids caching."""
    sink = MetricsSink()
    response = asyncio.run(sink.endpoint(Request({"type": "http", "method": "GET", "path": "/metrics", "headers": []})))
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8" == sink.content_type
    assert response.headers["cache-control"] == "no-store"
    assert b"beaconfire_connections 0.0\n" in bytes(response.body)
