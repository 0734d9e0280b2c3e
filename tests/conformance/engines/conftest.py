"""Every test of this folder runs once per engine."""

from __future__ import annotations

import pytest

from .harness import ENGINES, Run, run_with


@pytest.fixture(scope="session", params=ENGINES)
def run(request: pytest.FixtureRequest) -> Run:
    """Plays a scenario against a fresh engine of the kind under test. Of session scope because it holds no state,
    and so that hypothesis may use it for many examples."""
    return run_with(ENGINES[request.param])
