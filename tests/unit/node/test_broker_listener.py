"""Announcements of the broker reach the hub."""

from __future__ import annotations

from beaconfire.model.grants import SubscriptionGrant
from tests.unit.kit import OPEN, NodeHarness
from tests.unit.session.operations.support import (
    with_history,
)


def test_lost_link_ends_subscriptions_with_a_position() -> None:
    """Of all channels or of the named ones. Subscriptions without a position stay."""
    harness = NodeHarness(OPEN, {"kept": with_history()})
    client = harness.connect("ann", "kept:a", "kept:b", "free")
    served = harness.connect("bob", channels={"kept:b": SubscriptionGrant(), "kept:c": SubscriptionGrant()})
    harness.node.listener.on_link_lost(["kept:a", "free", "unknown"])
    assert set(client.session.subscriptions) == {"kept:b", "free"}
    assert served.disconnect_code == 0
    harness.node.listener.on_link_lost(None)
    assert set(client.session.subscriptions) == {"free"}
    assert [push["unsubscribe"]["code"] for push in client.receive_pushes()] == [2500, 2500]
    assert served.disconnect_code == 3010
