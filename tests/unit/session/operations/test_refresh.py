"""The commands refresh and sub_refresh: section 8 of the protocol reference."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.units import Seconds
from beaconfire.model.identity import Identity
from beaconfire.node.cluster import Selector, UnsubscribeSessions
from beaconfire.policy.tokens import TokenExpired, TokenUnverifiable
from tests.unit.kit import WITH_PRESENCE, HarnessClient, NodeHarness, settle
from tests.unit.session.operations.support import (
    UNIX_S,
    grants_for,
    subscribe_with_expiry,
    without_pings,
)

# --- refresh


def expiring(harness: NodeHarness, **identity: Any) -> HarnessClient:
    return harness.connect("ann", expire_at_unix_s=UNIX_S + 60, client_refresh=True, **identity)


def test_a_refresh_brings_a_later_end() -> None:
    """The answer says when; the old end is forgotten."""
    harness = NodeHarness(ping_interval=Seconds(0))
    client = expiring(harness)
    harness.tokens.connections.known["new"] = Identity(user="ann", expire_at_unix_s=UNIX_S + 600, client_refresh=True)
    assert client.request("refresh", token="new") == {
        "client": client.id,
        "version": "Beaconfire 1.2.3",
        "expires": True,
        "ttl": 600,
    }
    harness.advance_time(600, step_s=5)
    assert client.disconnect_code == 0
    harness.advance_time(30, step_s=5)
    assert client.disconnect_code == 3005


def test_a_refresh_may_end_the_expiry() -> None:
    """With a token that never expires there is nothing to watch."""
    harness = NodeHarness(ping_interval=Seconds(0))
    client = expiring(harness)
    harness.tokens.connections.known["forever"] = Identity(user="ann")
    assert client.request("refresh", token="forever") == {"client": client.id, "version": "Beaconfire 1.2.3"}
    harness.advance_time(3600, step_s=60)
    assert client.disconnect_code == 0


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (TokenExpired("exp"), 3005),
        (Identity(user="ann", expire_at_unix_s=UNIX_S - 1, client_refresh=True), 3005),
        (Identity(user="bob"), 3500),
        (None, 3500),
        (Identity(user="ann", channels=grants_for("a", "b")), 3010),
        (Identity(user="ann"), 3010),
        (Identity(user="ann", channels=grants_for("b")), 3010),
        (Identity(user="ann", channels=grants_for("a")), 0),
    ],
)
def test_what_a_refresh_may_bring(answer: Identity | Exception | None, code: int) -> None:
    """The same user with the same server-side channels, not expired (section 8)."""
    harness = NodeHarness()
    client = expiring(harness, channels=grants_for("a"))
    if answer is not None:
        harness.tokens.connections.known["new"] = answer
    assert client.request_code("refresh", token="new") == code


def test_only_expiring_clients_with_a_token_refresh() -> None:
    """An empty token, or a connection that does not expire: 3501."""
    assert expiring(NodeHarness()).request_code("refresh", token="") == 3501
    harness = NodeHarness()
    assert harness.connect("ann").request_code("refresh", token="ann") == 3501


def test_an_outage_of_the_keys_does_not_take_users_down() -> None:
    """A refresh that cannot be verified just now is a temporary error."""
    harness = NodeHarness()
    client = expiring(harness)
    harness.tokens.connections.known["new"] = TokenUnverifiable("no keys")
    reply = client.request_reply("refresh", token="new")
    assert (reply["error"]["code"], reply["error"]["temporary"]) == (100, True)
    assert client.disconnect_code == 0


def test_a_refresh_changes_what_others_see() -> None:
    """Its info is in what the client publishes from then on."""
    harness = NodeHarness()
    client = expiring(harness, info=Raw(b'"old"'))
    client.request("subscribe", channel="news")
    harness.tokens.connections.known["new"] = Identity(
        user="ann", info=Raw(b'"new"'), expire_at_unix_s=UNIX_S + 600, client_refresh=True
    )
    client.request("refresh", token="new")
    client.send("publish", channel="news", data=1)
    [push] = [message["push"] for message in client.receive() if "push" in message]
    assert push["pub"]["info"]["conn_info"] == "new"


def test_a_refresh_changes_presence_and_the_leave() -> None:
    """At once. A token that says nothing about info leaves it as it is: it only prolongs the connection."""
    harness = NodeHarness(WITH_PRESENCE)
    witness = harness.connect("bob", "news")
    client = expiring(harness, info=Raw(b'"old"'))
    client.request("subscribe", channel="news")

    def refresh(token: str, info: Raw) -> Any:
        harness.tokens.connections.known[token] = Identity("ann", info, UNIX_S + 600, client_refresh=True)
        client.request("refresh", token=token)
        return witness.request("presence", channel="news")["presence"][client.id].get("conn_info")

    assert refresh("new", Raw(b'"new"')) == "new"
    assert refresh("longer", Raw()) == "new"
    witness.receive()
    client.drop_connection()
    assert [push["leave"]["info"].get("conn_info") for push in witness.receive_pushes()] == ["new"]


# --- sub_refresh


def test_a_refreshed_subscription_lives_on() -> None:
    """Until its new end, or for good if it has none."""
    harness = without_pings()
    client = subscribe_with_expiry(harness)
    harness.tokens.add_subscription("later", "ann", "news", expire_at_unix_s=UNIX_S + 600.0, client_refresh=True)
    assert client.request("sub_refresh", channel="news", token="later") == {"expires": True, "ttl": 600}
    harness.advance_time(624, step_s=1)
    assert client.receive() == []
    harness.tokens.add_subscription("forever", "ann", "news")
    assert client.request("sub_refresh", channel="news", token="forever") == {}
    harness.advance_time(1000, step_s=10)
    assert set(client.session.subscriptions) == {"news"}


def test_a_refreshed_subscription_shows_its_new_info() -> None:
    """In presence at once, in what is published and in the leave; without one in the token the old stays."""
    harness = NodeHarness(WITH_PRESENCE)
    witness = harness.connect("bob", "news")
    client = harness.connect("ann")

    def token(name: str, info: bytes) -> str:
        return harness.tokens.add_subscription(
            name, "ann", "news", info=Raw(info), expire_at_unix_s=UNIX_S + 600.0, client_refresh=True
        )

    def shown() -> Any:
        return witness.request("presence", channel="news")["presence"][client.id].get("chan_info")

    client.request("subscribe", channel="news", token=token("first", b'"old"'))
    assert shown() == "old"
    client.request("sub_refresh", channel="news", token=token("second", b'"new"'))
    assert shown() == "new"
    client.request("sub_refresh", channel="news", token=token("third", b""))
    assert shown() == "new"
    witness.receive()
    client.request("publish", channel="news", data=1)
    client.request("unsubscribe", channel="news")
    published, left = witness.receive_pushes()
    assert published["pub"]["info"]["chan_info"] == left["leave"]["info"]["chan_info"] == "new"


REFRESHES: list[tuple[str, dict[str, Any], int]] = [
    ("no channel (the session lives: centrifuge-python 0.5 leaves it out)", {"channel": "", "token": "t"}, 107),
    ("not subscribed, before everything else", {"channel": "other", "token": ""}, 103),
    ("does not expire, before the empty token", {"channel": "steady", "token": ""}, 3501),
    ("an empty token", {"channel": "news", "token": ""}, 107),
    ("an expired token", {"channel": "news", "token": "old"}, 3006),
    ("a token whose own time is up", {"channel": "news", "token": "late"}, 3006),
    ("an invalid token", {"channel": "news", "token": "forged"}, 3500),
    ("a token of another channel", {"channel": "news", "token": "for sport"}, 3500),
    ("a token of another user", {"channel": "news", "token": "of bob"}, 3500),
    ("a good token", {"channel": "news", "token": "t"}, 0),
]


@pytest.mark.parametrize(("what", "request_", "code"), REFRESHES, ids=[what for what, _, _ in REFRESHES])
def test_refreshing_a_subscription(what: str, request_: dict[str, Any], code: int) -> None:
    """Each with its own outcome (section 8)."""
    harness = without_pings()
    client = subscribe_with_expiry(harness)
    harness.tokens.subscriptions.known["old"] = TokenExpired("exp")
    harness.tokens.add_subscription("late", "ann", "news", expire_at_unix_s=float(UNIX_S), client_refresh=True)
    harness.tokens.add_subscription("for sport", "ann", "sport")
    harness.tokens.add_subscription("of bob", "bob", "news")
    harness.tokens.add_subscription("steady", "ann", "steady")
    client.request("subscribe", channel="steady", token="steady")
    assert client.request_code("sub_refresh", **request_) == code


def test_a_subscription_that_ended_is_not_refreshed() -> None:
    """It was taken out while its new token was being verified."""

    async def scenario() -> None:
        harness = without_pings()
        client = subscribe_with_expiry(harness)
        harness.calls.hold("verify")
        number = client.send("sub_refresh", channel="news", token="t")
        await settle()
        harness.send_control(UnsubscribeSessions(Selector(user="ann"), "news"))
        harness.calls.release("verify")
        await settle()
        [error] = [message for message in client.receive() if message.get("id") == number]
        assert error["error"]["code"] == 103

    asyncio.run(scenario())
