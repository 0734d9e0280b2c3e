"""Every test of this folder runs once for each engine, or for each engine that has what the test needs."""

from __future__ import annotations

import pytest

from .harness import Run, run_with
from .mirror_harness import ALL_ENGINES
from .redis_harness import REDIS_ENGINES

ENGINES = {**ALL_ENGINES, **REDIS_ENGINES}

# Each fixture returns a function that runs a scenario on a new engine of the kind under test. The fixtures have session
# scope because they hold no state, and because hypothesis then accepts them for many examples.


@pytest.fixture(scope="session", params=ENGINES)
def run(request: pytest.FixtureRequest) -> Run:
    """Every engine."""
    return run_with(ENGINES[request.param])


@pytest.fixture(scope="session", params=[name for name, harness in ENGINES.items() if harness.can_fail])
def run_failing(request: pytest.FixtureRequest) -> Run:
    """The engines behind a guard, whose calls can be held back and fail."""
    return run_with(ENGINES[request.param])


@pytest.fixture(scope="session", params=[name for name, harness in ENGINES.items() if harness.has_several_nodes])
def run_nodes(request: pytest.FixtureRequest) -> Run:
    """The engines that connect several nodes."""
    return run_with(ENGINES[request.param])


@pytest.fixture(scope="session", params=[name for name, harness in ENGINES.items() if harness.has_link])
def run_link(request: pytest.FixtureRequest) -> Run:
    """The engines that can lose their link."""
    return run_with(ENGINES[request.param])
