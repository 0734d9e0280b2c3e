"""Conflated subscriptions, live and in a recovery."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import Raw

from tests.unit.kit import NodeHarness, settle
from tests.unit.session.operations.strategies import data_and_left_out, pushed, with_strategy


def test_conflated_subscription_gets_the_newest_publication_after_the_interval() -> None:
    """Conflation needs no permission, because it costs less."""
    harness = NodeHarness(with_strategy(allow_tags_filter=False, allowed_delta_types=[]))
    client, other = harness.connect("ann"), harness.connect("bob", "news")
    client.request("subscribe", channel="news", conflate={"max_rate": 2})
    harness.publish("news", *range(5))
    assert data_and_left_out(pushed(client)) == [(4, 4)]
    harness.publish("news", 5, 6)
    assert pushed(client) == []
    harness.advance_time(0.5)
    assert data_and_left_out(pushed(client)) == [(6, 1)]
    assert data_and_left_out(pushed(other)) == [(number, 0) for number in range(7)]
    assert harness.node.statistics().conflated_total == 5


def test_conflated_recovery_returns_the_newest_publication() -> None:
    """With the number of publications before it, if history has all of them. Then the rate applies."""
    harness = NodeHarness(with_strategy())
    harness.publish("news", *range(5))
    client = harness.connect("ann")
    position = {"recover": True, "offset": 1, "epoch": "epoch1"}
    result = client.request("subscribe", channel="news", conflate={"max_rate": 1}, **position)
    assert result["recovered"] is True
    assert data_and_left_out(result["publications"]) == [(4, 3)]
    harness.publish("news", 5)
    assert pushed(client) == []
    harness.advance_time(1.0)
    assert data_and_left_out(pushed(client)) == [(5, 0)]


def test_continuity_is_checked_before_conflation() -> None:
    """The newest publication always exists. The others are checked first."""
    harness = NodeHarness(with_strategy(history_size=2))
    harness.publish("news", *range(5))
    client = harness.connect("ann")
    result = client.request("subscribe", channel="news", conflate={}, recover=True, offset=1, epoch="epoch1")
    assert "recovered" not in result


def test_held_publications_are_conflated_after_the_reply() -> None:
    """If the reply had a publication, the newest held one is sent after the interval."""

    async def scenario(since: dict[str, Any], expected: list[tuple[Any, int]]) -> None:
        harness = NodeHarness(with_strategy(presence=True))
        harness.publish("news", "missed")
        client = harness.connect("ann")
        harness.calls.hold("presence_add")
        number = client.send("subscribe", channel="news", conflate={"max_rate": 1}, **since)
        await settle()
        harness.publish("news", 1, 2, 3)
        harness.run_scheduled()
        harness.calls.release("presence_add")
        await settle()
        reply, *pushes = client.receive()
        assert reply["id"] == number
        assert data_and_left_out([message["push"]["pub"] for message in pushes]) == expected
        harness.advance_time(1.0)
        assert data_and_left_out([message["push"]["pub"] for message in pushes] + pushed(client)) == [(3, 2)]

    asyncio.run(scenario({}, [(3, 2)]))
    asyncio.run(scenario({"recover": True, "offset": 0, "epoch": "epoch1"}, []))


def test_unwritable_connection_gets_the_newest_publication_later() -> None:
    """When it is writable again."""
    harness = NodeHarness(with_strategy())
    client = harness.connect("ann")
    client.request("subscribe", channel="news", conflate={})
    client.transport.writable = False
    harness.publish("news", *range(5))
    harness.run_scheduled()
    assert client.session.waiting_bytes == 0
    client.transport.writable = True
    client.session.on_writable()
    assert data_and_left_out(pushed(client)) == [(4, 4)]


def test_held_publication_that_is_not_json_ends_the_session_with_3506() -> None:
    """The held publications of its other channels are dropped."""
    harness = NodeHarness(with_strategy())
    client = harness.connect("ann")
    for channel in ("news", "more"):
        client.request("subscribe", channel=channel, conflate={})
    client.transport.writable = False
    harness.publish("news", Raw(b"\xff"))
    harness.publish("more", 1)
    harness.run_scheduled()
    client.transport.writable = True
    client.session.on_writable()
    harness.run_scheduled()
    assert client.disconnect_code == 3506


@pytest.mark.parametrize("rate", [-1, 0.001, 1001])
def test_rate_out_of_range_is_error_107(rate: float) -> None:
    """The client is not subscribed, and the detail has the range."""
    harness = NodeHarness(with_strategy(), debug_reasons=True)
    reply = harness.connect("ann").request_reply("subscribe", channel="news", conflate={"max_rate": rate})
    assert reply["error"]["code"] == 107
    assert "conflate.max_rate: expected 0, or 0.01 to 1000" in reply["error"]["message"]
    assert not harness.node.hub.has_subscribers("news")


def test_position_does_not_include_held_publications() -> None:
    """A client that recovers from its position gets the newest publication."""
    harness = NodeHarness(with_strategy())
    client = harness.connect("ann")
    client.request("subscribe", channel="news", conflate={"max_rate": 1})
    harness.publish("news", 1)
    harness.run_scheduled()
    harness.publish("news", 2, 3)
    harness.run_scheduled()
    assert client.session.positions() == {"news": (1, "epoch1")}
    harness.advance_time(1.0)
    assert client.session.positions() == {"news": (3, "epoch1")}
