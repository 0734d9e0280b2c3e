"""The commands refresh and sub_refresh: section 8 of the protocol reference."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.units import Seconds
from beaconfire.model.identity import Identity
from beaconfire.node.cluster import Selector, UnsubscribeSessions
from beaconfire.policy.no_opinion import NoOpinion
from beaconfire.policy.port import Caller
from beaconfire.policy.tokens import TokenExpired, TokenUnverifiable
from tests.unit.kit import WITH_PRESENCE, HarnessClient, NodeHarness, settle
from tests.unit.session.operations.support import UNIX_S, grants_for, subscribe_with_expiry, without_pings

# --- refresh


def expiring(harness: NodeHarness, **identity: Any) -> HarnessClient:
    return harness.connect("ann", expire_at_unix_s=UNIX_S + 60, client_refresh=True, **identity)


def test_refresh_moves_the_expiry() -> None:
    """The reply has the new time to live, and the old expiry does not count any more."""
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


def test_refresh_with_a_token_without_expiry_removes_the_expiry() -> None:
    """The connection never expires then."""
    harness = NodeHarness(ping_interval=Seconds(0))
    client = expiring(harness)
    harness.tokens.connections.known["without expiry"] = Identity(user="ann")
    assert client.request("refresh", token="without expiry") == {"client": client.id, "version": "Beaconfire 1.2.3"}
    harness.advance_time(3600, step_s=60)
    assert client.disconnect_code == 0


@pytest.mark.parametrize(
    ("outcome", "code"),
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
def test_refresh_needs_a_valid_token_of_the_same_user_and_channels(
    outcome: Identity | Exception | None, code: int
) -> None:
    """It must not be expired (section 8)."""
    harness = NodeHarness()
    client = expiring(harness, channels=grants_for("a"))
    if outcome is not None:
        harness.tokens.connections.known["new"] = outcome
    assert client.request_code("refresh", token="new") == code


class Renames(NoOpinion):
    """Renews every connection, and forgets the user."""

    async def refresh(self, caller: Caller, token: str) -> Identity | None:
        return Identity(expire_at_unix_s=UNIX_S + 600, client_refresh=True)


def test_refresh_never_changes_the_user() -> None:
    """Whatever the policy answers. The registry would keep the ended session under its old user for ever."""
    harness = NodeHarness(policy=Renames())
    client = expiring(harness)
    harness.tokens.connections.known["new"] = Identity(user="ann", expire_at_unix_s=UNIX_S + 600, client_refresh=True)
    client.send("refresh", token="new")
    assert client.disconnect_code == 3500
    assert (harness.node.registry.by_user("ann"), harness.node.registry.users) == ([], 0)


def test_refresh_without_token_or_without_expiry_ends_the_session_with_3501() -> None:
    """An empty token, or a connection that does not expire."""
    assert expiring(NodeHarness()).request_code("refresh", token="") == 3501
    harness = NodeHarness()
    assert harness.connect("ann").request_code("refresh", token="ann") == 3501


def test_unverifiable_refresh_is_a_temporary_error() -> None:
    """The connection stays open while the keys are not available."""
    harness = NodeHarness()
    client = expiring(harness)
    harness.tokens.connections.known["new"] = TokenUnverifiable("no keys")
    reply = client.request_reply("refresh", token="new")
    assert (reply["error"]["code"], reply["error"]["temporary"]) == (100, True)
    assert client.disconnect_code == 0


def test_refresh_changes_the_info_of_later_publications() -> None:
    """The info of the new token is in what the client publishes."""
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


def test_refresh_changes_presence_and_the_leave() -> None:
    """Presence changes at once. A token without info does not change the info."""
    harness = NodeHarness(WITH_PRESENCE)
    subscriber = harness.connect("bob", "news")
    client = expiring(harness, info=Raw(b'"old"'))
    client.request("subscribe", channel="news")

    def refresh(token: str, info: Raw) -> Any:
        harness.tokens.connections.known[token] = Identity("ann", info, UNIX_S + 600, client_refresh=True)
        client.request("refresh", token=token)
        return subscriber.request("presence", channel="news")["presence"][client.id].get("conn_info")

    assert refresh("new", Raw(b'"new"')) == "new"
    assert refresh("longer", Raw()) == "new"
    subscriber.receive()
    client.drop_connection()
    assert [push["leave"]["info"].get("conn_info") for push in subscriber.receive_pushes()] == ["new"]


# --- sub_refresh


def test_sub_refresh_moves_the_expiry() -> None:
    """A new token without an expiry removes it."""
    harness = without_pings()
    client = subscribe_with_expiry(harness)
    harness.tokens.add_subscription("later", "ann", "news", expire_at_unix_s=UNIX_S + 600.0, client_refresh=True)
    assert client.request("sub_refresh", channel="news", token="later") == {"expires": True, "ttl": 600}
    harness.advance_time(624, step_s=1)
    assert client.receive() == []
    harness.tokens.add_subscription("without expiry", "ann", "news")
    assert client.request("sub_refresh", channel="news", token="without expiry") == {}
    harness.advance_time(1000, step_s=10)
    assert set(client.session.subscriptions) == {"news"}


def test_sub_refresh_changes_the_channel_info() -> None:
    """In presence at once, in publications and in the leave. A token without info does not change it."""
    harness = NodeHarness(WITH_PRESENCE)
    subscriber = harness.connect("bob", "news")
    client = harness.connect("ann")

    def token(name: str, info: bytes) -> str:
        return harness.tokens.add_subscription(
            name, "ann", "news", info=Raw(info), expire_at_unix_s=UNIX_S + 600.0, client_refresh=True
        )

    def shown() -> Any:
        return subscriber.request("presence", channel="news")["presence"][client.id].get("chan_info")

    client.request("subscribe", channel="news", token=token("first", b'"old"'))
    assert shown() == "old"
    client.request("sub_refresh", channel="news", token=token("second", b'"new"'))
    assert shown() == "new"
    client.request("sub_refresh", channel="news", token=token("third", b""))
    assert shown() == "new"
    subscriber.receive()
    client.request("publish", channel="news", data=1)
    client.request("unsubscribe", channel="news")
    published, left = subscriber.receive_pushes()
    assert published["pub"]["info"]["chan_info"] == left["leave"]["info"]["chan_info"] == "new"


REFRESHES: list[tuple[str, dict[str, Any], int]] = [
    ("no channel (not a disconnect, because centrifuge-python 0.5 sends none)", {"channel": "", "token": "t"}, 107),
    ("not subscribed, before everything else", {"channel": "other", "token": ""}, 103),
    ("does not expire, before the empty token", {"channel": "no_expiry", "token": ""}, 3501),
    ("an empty token", {"channel": "news", "token": ""}, 107),
    ("an expired token", {"channel": "news", "token": "old"}, 3006),
    ("a token with a past expiry", {"channel": "news", "token": "late"}, 3006),
    ("an invalid token", {"channel": "news", "token": "forged"}, 3500),
    ("a token for another channel", {"channel": "news", "token": "for sport"}, 3500),
    ("a token for another user", {"channel": "news", "token": "for bob"}, 3500),
    ("a valid token", {"channel": "news", "token": "t"}, 0),
]


@pytest.mark.parametrize(("case", "request_", "code"), REFRESHES, ids=[case for case, _, _ in REFRESHES])
def test_sub_refresh_checks_its_request_in_order(case: str, request_: dict[str, Any], code: int) -> None:
    """Each failure has its own outcome (section 8)."""
    harness = without_pings()
    client = subscribe_with_expiry(harness)
    harness.tokens.subscriptions.known["old"] = TokenExpired("exp")
    harness.tokens.add_subscription("late", "ann", "news", expire_at_unix_s=float(UNIX_S), client_refresh=True)
    harness.tokens.add_subscription("for sport", "ann", "sport")
    harness.tokens.add_subscription("for bob", "bob", "news")
    harness.tokens.add_subscription("no_expiry", "ann", "no_expiry")
    client.request("subscribe", channel="no_expiry", token="no_expiry")
    assert client.request_code("sub_refresh", **request_) == code


def test_sub_refresh_of_an_ended_subscription_is_error_103() -> None:
    """The subscription ended while its new token was verified."""

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
