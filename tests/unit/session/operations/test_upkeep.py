"""Periodic work of a session: expired subscriptions. `test_expiry` has the deadlines."""

from __future__ import annotations

from tests.unit.session.operations.support import subscribe_with_expiry, without_pings


def test_session_without_expiry_has_no_upkeep() -> None:
    """Its keepalive has no deadline, so it needs no timer."""
    harness = without_pings()
    harness.connect("ann")
    harness.advance_time(20)
    assert len(harness.timers) == 0


def test_upkeep_runs_when_a_subscription_expires() -> None:
    """Not earlier, and not again after the last one."""
    harness = without_pings()
    client = subscribe_with_expiry(harness)
    harness.advance_time(84)
    assert client.receive() == []
    harness.advance_time(2)
    assert [push["unsubscribe"]["code"] for push in client.receive_pushes()] == [2501]
    harness.advance_time(2)
    assert len(harness.timers) == 0
