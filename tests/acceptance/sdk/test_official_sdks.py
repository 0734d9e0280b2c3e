"""The official SDKs against a running server with the reference configuration, in all their codecs and transports.

Each SDK has a scenario in its own language (`python/`, `node/`) that runs all its checks at once in a process of its
own and reports on each by name. Here every report becomes a test of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.sdk.checks import CHECKS, absent, checks_of
from tests.acceptance.server_process import REFERENCE_CONFIG, ServerProcess

pytestmark = pytest.mark.quiet  # a run is all checks of an SDK at once, in up to five processes, on fast clocks

ROOT = Path(__file__).resolve().parents[3]
NODE = Path(__file__).with_name("node")
OLD_PYTHON_SDK = ROOT / ".cache" / "sdk" / "centrifuge-python-0.5.0"
RUN_DEADLINE_S = 40.0

WAYS: dict[str, tuple[str, ...]] = {
    "python-0.7.0": ("json", "protobuf"),
    "python-0.5.0": ("json", "protobuf"),
    "javascript-5.8.0": ("json", "protobuf", "http_stream-json", "http_stream-protobuf", "sse-json"),
}
"""In which codecs, and over which transports other than WebSocket, each SDK is run; by the SDK's label."""

CONFIG = f"""{REFERENCE_CONFIG}
[namespaces.prices]
force_recovery = true
history_size = 100
history_ttl = "300s"
allow_subscribe_for_client = true
allow_tags_filter = true
allowed_delta_types = ["fossil"]
delta_publish = true
"""
"""The reference configuration, and a namespace with what it has no use for."""

HASTY = {
    "client.ping_interval": "3s",
    "client.pong_timeout": "2500ms",
    "client.expired_close_delay": "2s",
    "client.expired_sub_close_delay": "2s",
    "websocket.close_timeout": "500ms",
}
"""The reference configuration on fast clocks, for checks of what otherwise takes half a minute."""

_NODE = ["node", "--experimental-eventsource", "--disable-warning=UNDICI-ES"]
_PYTHON = [sys.executable, "-m", "tests.acceptance.sdk.python"]

SDKS: dict[str, list[str]] = {
    "python-0.7.0": _PYTHON,
    "python-0.5.0": _PYTHON,
    "javascript-5.8.0": [*_NODE, str(NODE / "main.js")],
}
"""The command of each SDK's scenario by the SDK's label."""

EXPECTED_LIMITS = {
    "websocket.message_size_limit",
    "websocket.close_timeout",
    "client.pong_timeout",
    "client.reply_max_size",
}
"""The limits that checks run into on purpose."""

Reports = Mapping[str, Mapping[str, str]]
"""By way: the error of each check by its name, empty if it passed; under "" what went wrong with the whole run."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """One with the reference configuration, one on fast clocks."""
    folder = tmp_path_factory.mktemp("servers")
    with ServerProcess(folder, CONFIG) as reference, ServerProcess(folder, CONFIG, HASTY) as hasty:
        yield reference, hasty


@pytest.fixture(scope="module")
def reports_of(servers: tuple[ServerProcess, ServerProcess]) -> Callable[[str], Reports]:
    """The reports of an SDK by its label. Whoever asks first makes it run, once."""
    ports = [str(server.port) for server in servers]
    return cache(lambda sdk: run_sdk(sdk, ports, WAYS[sdk]))


def run_sdk(sdk: str, ports: list[str], ways: Sequence[str]) -> Reports:
    """All ways at once, each in a process of its own. `ports` are those of the servers of `servers`."""
    _require(sdk)
    environment = dict(os.environ)
    if sdk == "python-0.5.0":
        environment["PYTHONPATH"] = str(OLD_PYTHON_SDK)
    processes = {
        way: subprocess.Popen(
            [*SDKS[sdk], f"{sdk}-{way}", way, *ports, *absent(sdk, way)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        for way in ways
    }
    try:
        return {way: _report(process) for way, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()


def _require(sdk: str) -> None:
    """Fails, rather than skips, where the SDK is not installed."""
    wanted = {"python-0.5.0": OLD_PYTHON_SDK, "javascript-5.8.0": NODE / "node_modules" / "centrifuge"}.get(sdk)
    if wanted is not None and not wanted.exists():
        pytest.fail(f"{wanted.relative_to(ROOT)} is missing: run `make services`", pytrace=False)


def _report(process: subprocess.Popen[str]) -> dict[str, str]:
    try:
        output, complaints = process.communicate(timeout=RUN_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        output, complaints = process.communicate()
        complaints += f"\nnot done within {RUN_DEADLINE_S} s"
    results: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines()]
    report = {str(result["check"]): str(result["error"]) for result in results}
    trouble = complaints.strip() or (f"exit code {process.returncode}" if process.returncode else "")
    return report | {"": trouble}


@pytest.mark.parametrize(
    ("sdk", "way", "check"),
    [(sdk, way, check) for sdk in SDKS for way in WAYS[sdk] for check in checks_of(sdk, way)],
)
def test_official_sdk(sdk: str, way: str, check: str, reports_of: Callable[[str], Reports]) -> None:
    """What `checks.CHECKS` says under this name holds."""
    report = reports_of(sdk)[way]
    assert check in report, f"{CHECKS[check]} (no report: {report['']})"
    assert not report[check], f"{CHECKS[check]}\n{report[check]}"


@pytest.mark.parametrize("sdk", SDKS)
def test_whole_run(sdk: str, reports_of: Callable[[str], Reports]) -> None:
    """The scenario knows exactly the checks of the table, and neither it nor the SDK complains on standard error."""
    reports = reports_of(sdk)
    for way in WAYS[sdk]:
        assert reports[way][""] == ""
        assert reports[way].keys() - {""} == set(checks_of(sdk, way))


def test_servers_notice_nothing_unusual(
    reports_of: Callable[[str], Reports], servers: tuple[ServerProcess, ServerProcess]
) -> None:
    """Whatever the SDKs do, the servers log no error, and warn of nothing but the limits hit on purpose."""
    for sdk in SDKS:
        reports_of(sdk)
    alarms = [line for server in servers for line in server.log if line.get("level") not in ("debug", "info")]
    assert [
        line for line in alarms if line.get("action") != "insecure" and line.get("limit") not in EXPECTED_LIMITS
    ] == []
