"""The commands subscribe and unsubscribe: section 9 of the protocol reference."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beaconfire.channels.options import ChannelNameOptions
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.node.cluster import Selector, SubscribeSessions
from beaconfire.policy.tokens import TokenExpired
from tests.unit.kit import OPEN, HarnessClient, NodeHarness, settle
from tests.unit.session.operations.support import ALL_STEPS, CLOSED, UNIX_S

# --- the order of checks (section 9)


def test_empty_channel_ends_the_session_with_3501() -> None:
    """This is the first check."""
    assert NodeHarness().connect("ann").request_code("subscribe", channel="", type=7) == 3501


LONG = "x" * 256
FULL = ("a", "b")
ORDER: list[tuple[str, dict[str, Any], int]] = [
    ("too long, before already subscribed", {"channel": LONG}, 107),
    ("already subscribed, before the limit", {"channel": "a"}, 105),
    ("the limit, before an unknown namespace", {"channel": "nowhere:x"}, 106),
]


@pytest.mark.parametrize(("case", "request_", "code"), ORDER, ids=[case for case, _, _ in ORDER])
def test_limits_are_checked_in_order(case: str, request_: dict[str, Any], code: int) -> None:
    """Each request would fail every later check as well."""
    harness = NodeHarness(OPEN, channel_limit=2)
    client = harness.connect("ann", *FULL)
    assert client.request_code("subscribe", **request_) == code


NEXT: list[tuple[str, dict[str, Any], int]] = [
    ("unknown namespace, before the name", {"channel": "nowhere:naïve"}, 102),
    ("not ASCII, before the type", {"channel": "naïve", "type": 1}, 107),
    ("type, before the private prefix", {"channel": "$x", "type": 1}, 103),
    ("a type other than stream", {"channel": "news", "type": 4}, 103),
    ("a tags filter is not allowed", {"channel": "news", "tf": {"key": "a", "cmp": "eq", "val": "b"}}, 107),
    ("an unknown delta type", {"channel": "news", "delta": "xdelta"}, 3501),
    ("private without a token", {"channel": "$x"}, 103),
    ("private with an expired token", {"channel": "$x", "token": "old"}, 109),
    ("an expired token", {"channel": "news", "token": "old"}, 109),
    ("an invalid token", {"channel": "news", "token": "forged"}, 103),
    ("a token for another channel", {"channel": "news", "token": "for sport"}, 3500),
    ("a token for another user", {"channel": "news", "token": "for bob"}, 3500),
    ("a token for another connection", {"channel": "news", "token": "for another client"}, 3500),
    ("a token with a past expiry", {"channel": "news", "token": "late"}, 109),
    ("no token and no permission", {"channel": "closed:x"}, 103),
    ("a token instead of a permission", {"channel": "closed:x", "token": "for closed:x"}, 0),
    ("fossil deltas are known and not allowed", {"channel": "news", "delta": "fossil"}, 0),
]


def harness_with_tokens() -> tuple[NodeHarness, HarnessClient]:
    harness = NodeHarness(OPEN, {"closed": CLOSED})
    harness.tokens.subscriptions.known["old"] = TokenExpired("exp")
    harness.tokens.add_subscription("for sport", "ann", "sport")
    harness.tokens.add_subscription("for bob", "bob", "news")
    harness.tokens.add_subscription("for another client", "ann", "news", client="another client")
    harness.tokens.add_subscription("late", "ann", "news", expire_at_unix_s=float(UNIX_S), client_refresh=True)
    harness.tokens.add_subscription("for closed:x", "ann", "closed:x")
    return harness, harness.connect("ann")


@pytest.mark.parametrize(("case", "request_", "code"), NEXT, ids=[case for case, _, _ in NEXT])
def test_permission_is_checked_in_order(case: str, request_: dict[str, Any], code: int) -> None:
    """Each failure has its own outcome, and leaves no subscription behind."""
    harness, client = harness_with_tokens()
    assert client.request_code("subscribe", **request_) == code
    assert set(client.session.subscriptions) == ({request_["channel"]} if code == 0 else set())
    assert harness.node.hub.statistics().subscriptions == (0 if code else 1)


def test_limits_are_exact_and_counted() -> None:
    """255 bytes are allowed, 256 are not. The number of channels may reach its limit."""
    harness = NodeHarness(channel_limit=2)
    client = harness.connect("ann")
    assert client.request_code("subscribe", channel="x" * 255) == 0
    assert client.request_code("subscribe", channel="x" * 256) == 107
    assert client.request_code("subscribe", channel="b") == 0
    assert client.request_code("subscribe", channel="c") == 106
    assert harness.recorder.limits() == ["channel_names.max_length", "client.channel_limit"]
    client.request("unsubscribe", channel="b")
    assert client.request_code("subscribe", channel="c") == 0


def test_subscribing_to_a_server_side_channel_is_error_105() -> None:
    """The session is subscribed already."""
    harness = NodeHarness()
    client = harness.connect("ann", channels={"news": SubscriptionGrant()})
    assert client.request_code("subscribe", channel="news") == 105


def test_private_channels_need_a_token_in_insecure_mode() -> None:
    """Insecure mode permits all other channels."""
    client = NodeHarness(CLOSED, insecure=True).connect()
    assert client.request_code("subscribe", channel="$x") == 103
    assert client.request_code("subscribe", channel="x") == 0


def test_channel_name_rules_are_configurable() -> None:
    """The length and the symbols."""
    harness = NodeHarness(names=ChannelNameOptions(max_length=5, private_prefix="!"))
    client = harness.connect("ann")
    assert client.request_code("subscribe", channel="123456") == 107
    assert client.request_code("subscribe", channel="!x") == 103
    assert client.request_code("subscribe", channel="$x") == 0


# --- unsubscribe


def test_unsubscribe_always_succeeds() -> None:
    """The session need not be subscribed, and the namespace need not exist."""
    client = NodeHarness().connect("ann", "news")
    for channel in ("news", "news", "other", "nowhere:x", LONG):
        assert client.request("unsubscribe", channel=channel) == {}
    assert client.session.subscriptions == {}
    assert client.request_code("unsubscribe", channel="") == 3501


def test_client_may_subscribe_again_after_unsubscribe() -> None:
    """The new subscription gets only later publications."""
    harness = NodeHarness()
    client = harness.connect("ann", "news")
    client.request("unsubscribe", channel="news")
    harness.publish("news", "missed")
    assert client.receive() == []
    assert client.request_code("subscribe", channel="news") == 0
    harness.publish("news", "later")
    assert [push["pub"]["data"] for push in client.receive_pushes()] == ["later"]


# --- while subscribe is suspended


@pytest.mark.parametrize("held", ["verify", "attach", "history", "presence_add"])
def test_unsubscribe_waits_for_the_subscribe_before_it(held: str) -> None:
    """The replies are in order, and the session is not subscribed in the end."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.tokens.add_subscription("t", "ann", "news")
        harness.calls.hold(held)
        first = client.send("subscribe", channel="news", token="t")
        second = client.send("unsubscribe", channel="news")
        await settle()
        assert client.receive() == []
        harness.calls.release(held)
        await settle()
        assert [message["id"] for message in client.receive() if "id" in message] == [first, second]
        assert client.session.subscriptions == {}
        assert harness.present_clients("news") == set()
        leaves = [call for call in harness.calls.completed if call.startswith("announce")]
        assert leaves == [f"announce news join {client.id}", f"announce news leave {client.id}"]

    asyncio.run(scenario())


def test_server_may_subscribe_while_a_token_is_verified() -> None:
    """The subscribe command then finds that the session is subscribed: error 105, and one subscription."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.tokens.add_subscription("t", "ann", "news")
        harness.calls.hold("verify")
        number = client.send("subscribe", channel="news", token="t")
        await settle()
        harness.send_control(SubscribeSessions(Selector(user="ann"), "news"))
        harness.calls.release("verify")
        await settle()
        [error] = [message for message in client.receive() if message.get("id") == number]
        assert error["error"]["code"] == 105
        assert harness.node.hub.statistics().subscriptions == 1
        client.drop_connection()
        assert harness.node.hub.statistics().subscriptions == 0

    asyncio.run(scenario())


def test_channel_limit_is_checked_again_after_verification() -> None:
    """Subscriptions that were made meanwhile count."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS, channel_limit=1)
        client = harness.connect("ann")
        harness.tokens.add_subscription("t", "ann", "news")
        harness.calls.hold("verify")
        number = client.send("subscribe", channel="news", token="t")
        await settle()
        harness.send_control(SubscribeSessions(Selector(user="ann"), "other"))
        harness.calls.release("verify")
        await settle()
        [error] = [message for message in client.receive() if message.get("id") == number]
        assert error["error"]["code"] == 106

    asyncio.run(scenario())
