"""The official SDKs against Beaconfire under other ASGI servers, with the same checks as against `beaconfire serve`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.acceptance.host_process import HOSTS, HostProcess
from tests.acceptance.sdk.checks import EXCLUDED_UNDER_HOSTS, checks_of
from tests.acceptance.sdk.test_official_sdks import CONFIG, FAST_CLOCKS, VARIANTS, run_sdk

pytestmark = pytest.mark.quiet  # as in `test_official_sdks`

PYTHON, JAVASCRIPT = "python-0.7.0", "javascript-5.8.0"

RUNS: tuple[tuple[str, str, Sequence[str]], ...] = (
    ("uvicorn", PYTHON, VARIANTS[PYTHON]),
    ("uvicorn", JAVASCRIPT, VARIANTS[JAVASCRIPT]),
    ("uvicorn-websockets", JAVASCRIPT, ("json",)),
    ("granian", JAVASCRIPT, ("json", "protobuf")),
    ("hypercorn", JAVASCRIPT, ("json", "protobuf")),
    ("middleware", JAVASCRIPT, ("json", "http_stream-json")),
)
"""Host, SDK and variants. Under uvicorn everything runs."""


@pytest.mark.parametrize(("host", "sdk", "variants"), RUNS, ids=[f"{host}-{sdk}" for host, sdk, _ in RUNS])
def test_sdk_passes_all_checks(host: str, sdk: str, variants: Sequence[str], tmp_path: Path) -> None:
    """Every check of the SDK's scenario, in every variant, except those of `EXCLUDED_UNDER_HOSTS`."""
    excluded = EXCLUDED_UNDER_HOSTS.get((host, sdk), {})
    with (
        HostProcess(HOSTS[host], tmp_path, CONFIG) as reference,
        HostProcess(HOSTS[host], tmp_path, CONFIG, FAST_CLOCKS) as fast,
    ):
        reports = run_sdk(sdk, [str(reference.port), str(fast.port)], variants, excluded)
    failed: Mapping[str, Mapping[str, str]] = {
        variant: {check: error for check, error in report.items() if error} for variant, report in reports.items()
    }
    assert failed == {variant: {} for variant in variants}
    for variant in variants:
        assert reports[variant].keys() - {""} == set(checks_of(sdk, variant)) - excluded.keys()
