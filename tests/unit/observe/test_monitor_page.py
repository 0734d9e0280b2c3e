"""The page on monitoring is correct and complete: its names exist, and all names that exist are on the page."""

from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from beaconfire.base.clock import ManualClock
from beaconfire.model import events
from beaconfire.observe import logs
from beaconfire.observe.http import RequestRecorder
from beaconfire.observe.logs import LogSink, configure
from beaconfire.observe.metric_table import LIMITS, METRICS
from beaconfire.observe.metrics import MetricsSink
from beaconfire.observe.options import LogOptions

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "monitor.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def alerts() -> dict[str, str]:
    groups: list[dict[str, Any]] = next(
        block["groups"] for block in map(yaml.safe_load, blocks("yaml")) if "groups" in block
    )
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def test_metrics_on_the_page_exist_with_these_labels() -> None:
    """A query that is copied from the page works."""
    known = {metric.name: set(metric.labels) for metric in METRICS}
    for metric in METRICS:
        if metric.kind == "histogram":
            known[f"{metric.name}_bucket"] = {*metric.labels, "le"}
    named = re.findall(r"\b(beaconfire_[a-z_]+|http_requests_total|request_duration_seconds)(?:\{([^}]*)\})?", PAGE)
    assert len(named) > 20
    for name, selector in named:
        assert set(re.findall(r"(\w+)(?:=~|!=|=)", selector)) <= known[name], name


def test_every_limit_is_explained_and_has_an_alert() -> None:
    """The page explains every limit and has an alert for it."""
    explained = set(re.findall(r"^\| `([\w.]+)` \|.*\|.*\|$", PAGE, re.MULTILINE))
    assert set(LIMITS) <= explained
    selectors = re.findall(r'beaconfire_limit_hits_total\{limit=~?"([^"]+)"\}', "\n".join(alerts().values()))
    assert {limit for selector in selectors for limit in selector.split("|")} == set(LIMITS)


@pytest.mark.parametrize("expression", alerts().values(), ids=alerts().keys())
def test_alert_expressions_are_balanced(expression: str) -> None:
    """Brackets are closed in the order in which they were opened."""
    pairs = {")": "(", "]": "[", "}": "{"}
    opened: list[str] = []
    for character in re.sub(r'"[^"]*"', "", expression):
        if character in "([{":
            opened.append(character)
        elif character in pairs:
            assert opened
            assert opened.pop() == pairs[character]
    assert not opened


def documented_actions() -> dict[str, set[str]]:
    """The fields of each action in the table."""
    found: dict[str, set[str]] = {}
    section = PAGE.partition("## The log")[2].partition("## Probes")[0]
    for row in re.findall(r"^\| (`[a-z_`, ]+`) \| (?!`).*?\| (.*) \|$", section, re.MULTILINE):
        for action in re.findall(r"`(\w+)`", row[0]):
            found[action] = set(re.findall(r"`(\w+)`", row[1]))
    return found


def test_actions_and_their_fields_are_documented() -> None:
    """The page lists all actions and fields that are written, and no others."""
    stream = io.StringIO()
    configure(LogOptions(level="debug", format="json"), stream)
    sink = LogSink(clock=ManualClock())
    for good in (True, False):
        error = 0 if good else 107
        sink.emit(events.ConnectionOpened("websocket", "plain", "c"))
        sink.emit(events.SessionConnected("c", "u", "websocket", "plain", "js", "1"))
        sink.emit(events.SessionEnded("c", "u", "websocket", "plain", 3000, "reason", "" if good else "detail", 1.0))
        sink.emit(events.CommandHandled("c", "u", "publish", "", 0.1, error, "detail"))
        sink.emit(events.ApiCallHandled("publish", 0.1, error))
        sink.emit(events.Subscribed("c", "channel", ""))
        sink.emit(events.Unsubscribed("c", "channel", "", 0))
        sink.emit(events.RecoveryFinished("channel", "", good, 1))
        sink.emit(events.LimitHit("client.queue_max_size", "c"))
        sink.emit(events.HandshakeRefused("/ws", 403, "origin"))
        sink.emit(events.DrainAdvanced("closing", 1))
        sink.emit(events.TokenKeysFetched(1, "" if good else "error"))
        sink.emit(events.TokensRevoked("u", "channel", 1.0))
        sink.emit(events.EngineStateChanged("redis", good, "" if good else "detail"))
        sink.emit(events.EngineConnected("redis", "redis 7.0.15", "10.0.0.1:6379", "" if good else "detail"))
        sink.emit(events.MigrationProgressed("verified", 1, 0 if good else 1))
        sink.emit(events.MigrationFailed("detail"))
        sink.emit(events.MigrationReadChanged(50.0))
        sink.emit(events.WorkDropped("announcements", 3, "detail"))
        sink.emit(events.HubConnectionEnded("node", "" if good else "detail"))
        sink.emit(events.InternalError("hub", "Traceback"))
    RequestRecorder(MetricsSink(), []).record("GET", "/", 200, 0.1)
    logging.getLogger("library").warning("x")
    render_loss = logs._outputs[0]._render_loss
    assert render_loss is not None
    stream.write(render_loss(1) + "\n")
    written: dict[str, set[str]] = {}
    for text in stream.getvalue().splitlines():
        line = json.loads(text)
        own = set(line) - {"timestamp", "level", "action", "status"}
        written.setdefault(line["action"], set()).update(own)
    documented = documented_actions()
    assert set(written) == set(documented)
    for action, fields in written.items():
        assert fields <= documented[action], action


def test_examples_are_valid() -> None:
    """The JSON on the page is valid and begins with the fixed fields; the YAML is valid."""
    line, report = (json.loads(block) for block in blocks("json"))
    assert list(line)[:5] == ["timestamp", "level", "action", "status", "duration_ms"]
    assert set(report) == {"status", "checks"}
    assert all(yaml.safe_load(block) for block in blocks("yaml"))
