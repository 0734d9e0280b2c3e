"""Subscribe messages of the server API while the engine fails."""

from __future__ import annotations

import pytest

from beaconfire.base.errors import EngineUnavailable
from beaconfire.model.events import WorkDropped
from beaconfire.node.cluster import Selector, SubscribeSessions, UnsubscribeSessions
from beaconfire.node.local_sessions import SUBSCRIBE_TRIES_MAX
from tests.unit.kit import RECOVERABLE, HarnessClient, NodeHarness


def subscribed(client: HarnessClient) -> list[str]:
    """The channels of the subscribe pushes. Pings are left out."""
    return [message["push"]["channel"] for message in client.receive() if "subscribe" in message.get("push", {})]


def test_subscribe_message_is_repeated_if_the_engine_fails() -> None:
    """The server API has its answer already, so nobody else could repeat the call."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann")
    for call in ("attach", "history"):
        harness.calls.fail_next(call, EngineUnavailable("no link"))
    harness.send_control(SubscribeSessions(Selector(user="ann"), "news"))
    assert client.receive() == []
    harness.advance_time(2)
    assert subscribed(client) == ["news"]
    assert harness.recorder.of(WorkDropped) == []


def test_subscribe_message_that_fails_too_often_is_reported() -> None:
    """The session stays as it is."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann")
    for number in range(SUBSCRIBE_TRIES_MAX):
        harness.calls.fail_next("attach", EngineUnavailable("no link"))
        if not number:
            harness.send_control(SubscribeSessions(Selector(user="ann"), "news"))
        else:
            harness.advance_time(0.15 * 2 ** (number - 1), 0.15 * 2 ** (number - 1))
    assert [(event.work, event.count) for event in harness.recorder.of(WorkDropped)] == [("subscribe", 1)]
    harness.advance_time(20)
    assert subscribed(client) == []
    assert client.session.subscriptions == {}


@pytest.mark.parametrize("channel", ["", "news"])
def test_unsubscribe_message_ends_the_repetition(channel: str) -> None:
    """Otherwise the older subscribe would come after it. So does the end of the session."""
    harness = NodeHarness(RECOVERABLE)
    client, other = harness.connect("ann"), harness.connect("bob")
    for user in ("ann", "bob"):
        harness.calls.fail_next("attach", EngineUnavailable("no link"))
        harness.send_control(SubscribeSessions(Selector(user=user), "news"))
    harness.send_control(UnsubscribeSessions(Selector(user="ann"), channel))
    other.drop_connection()
    harness.advance_time(20)
    assert client.session.subscriptions == other.session.subscriptions == {}


def test_newer_subscribe_message_replaces_one_that_is_repeated() -> None:
    """The client is subscribed once."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann")
    harness.calls.fail_next("attach", EngineUnavailable("no link"))
    for _ in range(2):
        harness.send_control(SubscribeSessions(Selector(user="ann"), "news"))
    harness.advance_time(20)
    assert subscribed(client) == ["news"]
