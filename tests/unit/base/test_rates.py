"""How much one connection sends per second."""

from __future__ import annotations

import pytest

from beaconfire.base.rates import RateMeter


@pytest.mark.parametrize(
    ("messages", "size", "limit"),
    [
        (10, 100, ""),
        (11, 0, "client.message_rate_limit"),
        (1, 101, "client.byte_rate_limit"),
        (11, 101, "client.message_rate_limit"),
    ],
)
def test_limits_are_named(messages: int, size: int, limit: str) -> None:
    """Exactly the limit is still allowed; one more is not."""
    meter = RateMeter()
    meter.add(1000.0, messages, size)
    assert meter.exceeded(10, 100) == limit


def test_zero_is_no_limit() -> None:
    """Each limit can be switched off by itself."""
    meter = RateMeter()
    meter.add(1000.0, 10**6, 10**9)
    assert meter.exceeded(0, 0) == ""
    assert meter.exceeded(0, 1) == "client.byte_rate_limit"
    assert meter.exceeded(1, 0) == "client.message_rate_limit"


def test_a_second_adds_up_and_the_next_one_starts_afresh() -> None:
    """The window begins with the first message in it and is one second long."""
    meter = RateMeter()
    meter.add(1000.5, 6, 60)
    meter.add(1001.4, 6, 60)
    assert meter.exceeded(10, 0) == "client.message_rate_limit"
    assert meter.exceeded(0, 100) == "client.byte_rate_limit"
    meter.add(1001.5, 6, 60)
    assert meter.exceeded(10, 100) == ""
