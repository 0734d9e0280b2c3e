"""The rate at which one connection sends."""

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
def test_the_exceeded_setting_is_named(messages: int, size: int, limit: str) -> None:
    """Exactly the limit is allowed; one message or byte more is not."""
    meter = RateMeter()
    meter.add(1000.0, messages, size)
    assert meter.exceeded(10, 100) == limit


def test_a_limit_of_zero_means_no_limit() -> None:
    """Each limit can be switched off separately."""
    meter = RateMeter()
    meter.add(1000.0, 10**6, 10**9)
    assert meter.exceeded(0, 0) == ""
    assert meter.exceeded(0, 1) == "client.byte_rate_limit"
    assert meter.exceeded(1, 0) == "client.message_rate_limit"


def test_counting_restarts_after_one_second() -> None:
    """A window starts with its first message and lasts one second."""
    meter = RateMeter()
    meter.add(1000.5, 6, 60)
    meter.add(1001.4, 6, 60)
    assert meter.exceeded(10, 0) == "client.message_rate_limit"
    assert meter.exceeded(0, 100) == "client.byte_rate_limit"
    meter.add(1001.5, 6, 60)
    assert meter.exceeded(10, 100) == ""
