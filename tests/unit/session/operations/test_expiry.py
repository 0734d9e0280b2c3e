"""When connections and subscriptions expire: section 8 of the protocol reference."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.base.units import Seconds
from beaconfire.model.identity import Identity
from beaconfire.node.cluster import Selector, SubscribeSessions
from tests.unit.kit import NodeHarness
from tests.unit.session.operations.support import CLOSED, UNIX_S, subscribe_with_expiry, without_pings


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (Identity(user="ann", expire_at_unix_s=UNIX_S + 60.5, client_refresh=True), (True, 60)),
        (Identity(user="ann", expire_at_unix_s=UNIX_S + 0.5, client_refresh=True), (True, 1)),
        (Identity(user="ann", expire_at_unix_s=UNIX_S + 10**9, client_refresh=True), (True, 365 * 86400)),
        (Identity(user="ann", expire_at_unix_s=UNIX_S + 60, client_refresh=False), (False, 0)),
        (Identity(user="ann"), (False, 0)),
    ],
)
def test_connect_result_has_the_time_to_live_if_the_client_refreshes(
    identity: Identity, expected: tuple[bool, int]
) -> None:
    """In whole seconds, at most a year."""
    harness = NodeHarness()
    harness.tokens.connections.known["t"] = identity
    result = harness.open_session().request("connect", token="t")
    assert (result.get("expires", False), result.get("ttl", 0)) == expected


def test_connections_do_not_expire_in_insecure_mode() -> None:
    """The token is verified, but its expiry is ignored."""
    harness = NodeHarness(insecure=True, ping_interval=Seconds(0))
    harness.tokens.connections.known["t"] = Identity(user="ann", expire_at_unix_s=UNIX_S + 5, client_refresh=True)
    client = harness.open_session()
    assert "expires" not in client.request("connect", token="t")
    harness.advance_time(100, step_s=5)
    assert client.disconnect_code == 0


@pytest.mark.parametrize("interval", [Seconds(0), Seconds(7), Seconds(27)])
def test_expired_subscription_ends_with_2501_after_the_extra_time(interval: Seconds) -> None:
    """For every upkeep interval. The session stays open."""
    harness = without_pings(presence_update_interval=interval)
    client = subscribe_with_expiry(harness)
    harness.advance_time(84.5)
    assert client.receive() == []
    harness.advance_time(0.5)
    assert client.receive_pushes() == [
        {"channel": "news", "unsubscribe": {"code": 2501, "reason": "subscription expired"}}
    ]
    assert client.disconnect_code == 0
    assert harness.node.hub.statistics().subscriptions == 0


def test_expired_server_side_subscription_ends_the_session_with_3006() -> None:
    """The client cannot subscribe again by itself."""
    harness = without_pings()
    client = harness.connect("ann")
    harness.send_control(SubscribeSessions(Selector(user="ann"), "news", expire_at_unix_s=UNIX_S + 60.0))
    harness.advance_time(84.5)
    assert client.disconnect_code == 0
    harness.advance_time(0.5)
    assert client.disconnect_code == 3006


def test_subscribe_result_has_the_data_and_time_to_live_of_the_token() -> None:
    """In whole seconds, at most a year. The data is unchanged."""
    harness = NodeHarness(CLOSED)
    client = harness.connect("ann")
    for channel, expire_in_s, ttl in (("a", 60.5, 60), ("b", 0.2, 1), ("c", 10.0**9, 365 * 86400)):
        harness.tokens.add_subscription(
            channel, "ann", channel, expire_at_unix_s=UNIX_S + expire_in_s, client_refresh=True, data=Raw(b'{"a":1}')
        )
        result = client.request("subscribe", channel=channel, token=channel)
        assert result == {"expires": True, "ttl": ttl, "data": {"a": 1}}
