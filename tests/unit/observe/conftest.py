"""Logging is process-wide; what a test configures ends with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from beaconfire.observe import logs


@pytest.fixture(autouse=True)
def reset_logging() -> Iterator[None]:
    yield
    logs.reset()
