"""The official SDKs against Beaconfire under other ASGI servers and with several workers, with the same checks as
against `beaconfire serve`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.host_process import HOSTS, HostProcess
from tests.acceptance.sdk.checks import EXCLUDED_UNDER_HOSTS, checks_of
from tests.acceptance.sdk.test_official_sdks import CONFIG, FAST_CLOCKS, VARIANTS, Reports, run_sdk

pytestmark = pytest.mark.quiet  # as in `test_official_sdks`

PYTHON, JAVASCRIPT = "python-0.7.0", "javascript-5.8.0"

RUNS: Mapping[str, tuple[str, str, Sequence[str]]] = {
    f"{host}-{sdk}": (host, sdk, variants)
    for host, sdk, variants in (
        ("uvicorn", PYTHON, VARIANTS[PYTHON]),
        ("uvicorn", JAVASCRIPT, VARIANTS[JAVASCRIPT]),
        ("uvicorn-websockets", JAVASCRIPT, ("json",)),
        ("granian", JAVASCRIPT, ("json", "protobuf")),
        ("hypercorn", JAVASCRIPT, ("json", "protobuf")),
        ("middleware", JAVASCRIPT, ("json", "http_stream-json")),
        ("workers", PYTHON, VARIANTS[PYTHON]),
        ("workers", JAVASCRIPT, VARIANTS[JAVASCRIPT]),
    )
}
"""Host, SDK and variants, by name. Under uvicorn and with several workers everything runs."""


RUNS_AT_ONCE = 2
"""A run mostly waits. More of them would make the short timeouts of the checks too short."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[Reports]]]:
    """The reports of each run by its name. The runs start with the first test."""
    with ThreadPoolExecutor(RUNS_AT_ONCE) as pool:
        yield {
            name: pool.submit(run_under_host, host, sdk, variants, tmp_path_factory.mktemp(host))
            for name, (host, sdk, variants) in RUNS.items()
        }


def run_under_host(host: str, sdk: str, variants: Sequence[str], folder: Path) -> Reports:
    excluded = EXCLUDED_UNDER_HOSTS.get((host, sdk), {})
    with (
        HostProcess(HOSTS[host], folder, CONFIG) as reference,
        HostProcess(HOSTS[host], folder, CONFIG, FAST_CLOCKS) as fast,
    ):
        return run_sdk(sdk, [str(reference.port), str(fast.port)], variants, excluded)


@pytest.mark.parametrize("name", RUNS)
def test_sdk_passes_all_checks(name: str, reports: Mapping[str, Future[Reports]]) -> None:
    """Every check of the SDK's scenario, in every variant, except those of `EXCLUDED_UNDER_HOSTS`."""
    host, sdk, variants = RUNS[name]
    report = reports[name].result()
    failed = {variant: {check: error for check, error in report[variant].items() if error} for variant in variants}
    assert failed == {variant: {} for variant in variants}
    for variant in variants:
        assert (
            report[variant].keys() - {""}
            == set(checks_of(sdk, variant)) - EXCLUDED_UNDER_HOSTS.get((host, sdk), {}).keys()
        )
