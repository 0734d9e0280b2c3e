"""Every test of this folder runs once for each engine."""

from __future__ import annotations

import pytest

from .harness import ENGINES, Run, run_with


@pytest.fixture(scope="session", params=ENGINES)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario on a new engine of the kind under test. The fixture has session scope because it holds no state,
    and because hypothesis then accepts it for many examples.
    """
    return run_with(ENGINES[request.param])
