"""How long to wait before a failed call is repeated."""

from __future__ import annotations

import pytest

from beaconfire.base.backoff import DELAY_MAX_S, FIRST_DELAY_S, Backoff


@pytest.mark.parametrize(("failures", "longest_s"), [(1, FIRST_DELAY_S), (2, 0.4), (4, 1.6), (6, 5.0), (10_000, 5.0)])
def test_delay_doubles_with_each_failure_up_to_a_limit(failures: int, longest_s: float) -> None:
    """The jitter is up to half of the delay."""
    assert Backoff(lambda: 0.0).delay_s(failures) == pytest.approx(longest_s / 2)
    assert Backoff(lambda: 0.999999).delay_s(failures) == pytest.approx(longest_s, rel=1e-3)
    assert Backoff(lambda: 0.5).delay_s(failures) <= DELAY_MAX_S
