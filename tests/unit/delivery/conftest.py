"""A hub with transports that are written to, and with transports whose sockets are sent to directly."""

from __future__ import annotations

import pytest

from tests.unit.delivery.harness import PlainHarness


@pytest.fixture(params=[False, True], ids=["written", "direct"])
def harness(request: pytest.FixtureRequest) -> PlainHarness:
    return PlainHarness(request.param)
