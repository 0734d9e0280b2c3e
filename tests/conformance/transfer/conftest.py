"""Every test of this folder runs once for each pair of an old and a new engine."""

from __future__ import annotations

import pytest

from .harness import ENGINES, Run, run_with


@pytest.fixture(scope="session", params=[(old, new) for old in ENGINES for new in ENGINES], ids="-to-".join)
def run(request: pytest.FixtureRequest) -> Run:
    return run_with(*request.param)
