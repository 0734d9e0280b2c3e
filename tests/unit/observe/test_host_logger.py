"""The logger inside another application: that application decides where lines go."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import CapturingLogger

from beaconfire.base.clock import ManualClock
from beaconfire.observe.logs import host_logger
from beaconfire.observe.options import LogOptions


@pytest.fixture
def unconfigured_structlog() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_lines_go_to_the_standard_library(caplog: pytest.LogCaptureFixture) -> None:
    """To the logger `beaconfire`, as text without time and level, which the host's formatter adds."""
    caplog.set_level(logging.DEBUG, "beaconfire")
    host_logger(LogOptions(), clock=ManualClock()).info("node_started", engine="memory", detail="two words")
    [record] = caplog.records
    assert (record.name, record.levelname) == ("beaconfire", "INFO")
    assert record.getMessage() == "node_started ok engine=memory detail='two words'"


def test_json_lines_have_all_fields(caplog: pytest.LogCaptureFixture) -> None:
    """With `log.format = "json"`, as those of `beaconfire serve`."""
    caplog.set_level(logging.DEBUG, "beaconfire")
    host_logger(LogOptions(format="json"), clock=ManualClock()).warning("insecure", detail="api")
    line = json.loads(caplog.records[0].getMessage())
    assert (line["action"], line["level"], line["status"], line["detail"]) == ("insecure", "warning", "warning", "api")
    assert line["timestamp"].endswith("Z")


def test_levels_of_the_host_and_of_the_options_both_apply(caplog: pytest.LogCaptureFixture) -> None:
    """A line below either of them is not written."""
    caplog.set_level(logging.INFO, "beaconfire")
    host_logger(LogOptions(level="debug")).debug("command")
    host_logger(LogOptions(level="warning")).info("node_started")
    assert caplog.records == []
    host_logger(LogOptions(level="info")).info("node_started")
    assert len(caplog.records) == 1


def test_secrets_are_redacted(caplog: pytest.LogCaptureFixture) -> None:
    """As by `configure`."""
    host_logger(LogOptions(), ["top-secret-key"]).warning("refused", detail="key top-secret-key")
    assert "top-secret-key" not in caplog.records[0].getMessage()


@pytest.mark.usefixtures("unconfigured_structlog")
def test_structlog_of_the_host_gets_the_lines() -> None:
    """If the host has configured it."""
    captured = CapturingLogger()
    structlog.configure(processors=[], logger_factory=lambda *_: captured)
    host_logger(LogOptions()).warning("insecure", detail="api")
    assert [(call.method_name, call.kwargs) for call in captured.calls] == [
        ("warning", {"event": "insecure", "detail": "api"})
    ]
