"""The official SDKs against a running server with the reference configuration, in all their codecs and transports.

Each SDK has a scenario in its own language (`python/`, `node/`). It runs all its checks in parallel in a separate
process and reports each by name. Here every report becomes a test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.sdk.checks import CHECKS, checks_of, excluded_checks
from tests.acceptance.server_process import REFERENCE_CONFIG, ServerProcess

pytestmark = pytest.mark.quiet  # a run is all checks of an SDK at once, in up to five processes, with short timeouts

ROOT = Path(__file__).resolve().parents[3]
NODE = Path(__file__).with_name("node")
OLD_PYTHON_SDK = ROOT / ".cache" / "sdk" / "centrifuge-python-0.5.0"
RUN_DEADLINE_S = 40.0

VARIANTS: dict[str, tuple[str, ...]] = {
    "python-0.7.0": ("json", "protobuf"),
    "python-0.5.0": ("json", "protobuf"),
    "javascript-5.8.0": ("json", "protobuf", "http_stream-json", "http_stream-protobuf", "sse-json"),
}
"""The codecs, and the transports other than WebSocket, of each SDK, by the SDK's label."""

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
"""The reference configuration, and a namespace with deltas and filters."""

FAST_CLOCKS = {
    "client.ping_interval": "3s",
    "client.pong_timeout": "2500ms",
    "client.expired_close_delay": "2s",
    "client.expired_sub_close_delay": "2s",
    "websocket.close_timeout": "500ms",
}
"""Short timeouts for the reference configuration, for checks that otherwise take half a minute."""

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
"""The limits that checks hit intentionally."""

Reports = Mapping[str, Mapping[str, str]]
"""By variant: the error of each check by its name, empty if it passed; under "" the error of the whole run."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """A server with the reference configuration, and one with short timeouts."""
    folder = tmp_path_factory.mktemp("servers")
    with ServerProcess(folder, CONFIG) as reference, ServerProcess(folder, CONFIG, FAST_CLOCKS) as fast:
        yield reference, fast


@pytest.fixture(scope="module")
def reports_of(servers: tuple[ServerProcess, ServerProcess]) -> Callable[[str], Reports]:
    """The reports of an SDK by its label. The first call runs the SDK."""
    ports = [str(server.port) for server in servers]
    return cache(lambda sdk: run_sdk(sdk, ports, VARIANTS[sdk]))


def run_sdk(sdk: str, ports: list[str], variants: Sequence[str], excluded: Iterable[str] = ()) -> Reports:
    """Runs all variants in parallel, each in its own process. `ports` are those of the fixture `servers`.

    `excluded` are checks to exclude besides those of `excluded_checks`.
    """
    _require(sdk)
    environment = dict(os.environ)
    if sdk == "python-0.5.0":
        environment["PYTHONPATH"] = str(OLD_PYTHON_SDK)
    processes = {
        variant: subprocess.Popen(
            [*SDKS[sdk], f"{sdk}-{variant}", variant, *ports, *excluded_checks(sdk, variant), *excluded],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        for variant in variants
    }
    try:
        return {variant: _report(process) for variant, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()


def _require(sdk: str) -> None:
    """Fails (does not skip) if the SDK is not installed."""
    wanted = {"python-0.5.0": OLD_PYTHON_SDK, "javascript-5.8.0": NODE / "node_modules" / "centrifuge"}.get(sdk)
    if wanted is not None and not wanted.exists():
        pytest.fail(f"{wanted.relative_to(ROOT)} is missing: run `make services`", pytrace=False)


def _report(process: subprocess.Popen[str]) -> dict[str, str]:
    try:
        output, stderr = process.communicate(timeout=RUN_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        output, stderr = process.communicate()
        stderr += f"\nnot done within {RUN_DEADLINE_S} s"
    results: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines()]
    report = {str(result["check"]): str(result["error"]) for result in results}
    error = stderr.strip() or (f"exit code {process.returncode}" if process.returncode else "")
    return report | {"": error}


@pytest.mark.parametrize(
    ("sdk", "variant", "check"),
    [(sdk, variant, check) for sdk in SDKS for variant in VARIANTS[sdk] for check in checks_of(sdk, variant)],
)
def test_official_sdk(sdk: str, variant: str, check: str, reports_of: Callable[[str], Reports]) -> None:
    """The SDK passes the check of this name in `checks.CHECKS`."""
    report = reports_of(sdk)[variant]
    assert check in report, f"{CHECKS[check]} (no report: {report['']})"
    assert not report[check], f"{CHECKS[check]}\n{report[check]}"


@pytest.mark.parametrize("sdk", SDKS)
def test_scenarios_run_exactly_the_listed_checks(sdk: str, reports_of: Callable[[str], Reports]) -> None:
    """The scenario reports exactly the checks of the table, and prints nothing on standard error."""
    reports = reports_of(sdk)
    for variant in VARIANTS[sdk]:
        assert reports[variant][""] == ""
        assert reports[variant].keys() - {""} == set(checks_of(sdk, variant))


def test_servers_log_only_expected_warnings(
    reports_of: Callable[[str], Reports], servers: tuple[ServerProcess, ServerProcess]
) -> None:
    """The servers log no error, and no warning except for the limits that checks hit intentionally."""
    for sdk in SDKS:
        reports_of(sdk)
    warnings = [line for server in servers for line in server.log if line.get("level") not in ("debug", "info")]
    assert [
        line for line in warnings if line.get("action") != "insecure" and line.get("limit") not in EXPECTED_LIMITS
    ] == []
