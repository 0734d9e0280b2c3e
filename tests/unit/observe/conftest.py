"""Logging is global to the process, so it is reset after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from beaconfire.observe import logs


@pytest.fixture(autouse=True)
def reset_logging() -> Iterator[None]:
    yield
    logs.reset()
