"""Clients learn of gaps at a limited rate."""

from __future__ import annotations

from typing import Any

from beaconfire.session.gap_notices import WINDOW_S
from tests.unit.kit import RECOVERABLE, HarnessClient, NodeHarness
from tests.unit.session.operations.support import grants_for, with_history

RATE = 20
PER_WINDOW = int(RATE * WINDOW_S)


def make_gap(harness: NodeHarness, channel: str = "news") -> None:
    harness.node.hub.mark_gap(channel, "publications were lost")
    harness.run_scheduled()


def told(clients: list[HarnessClient]) -> int:
    """How many of the clients are not subscribed any more."""
    return sum("news" not in client.session.subscriptions for client in clients)


def clients(rate: int = RATE, count: int = 10) -> tuple[NodeHarness, list[HarnessClient]]:
    harness = NodeHarness(RECOVERABLE, gap_rate_limit=rate)
    return harness, [harness.connect("ann", "news") for _ in range(count)]


def test_notices_above_the_rate_wait() -> None:
    """Each window has its share, and each notice that waits is counted."""
    harness, everybody = clients()
    make_gap(harness)
    assert told(everybody) == PER_WINDOW
    assert harness.recorder.limits() == ["client.gap_rate_limit"] * (10 - PER_WINDOW)
    for window in range(2, 6):
        harness.advance_time(WINDOW_S, WINDOW_S)
        assert told(everybody) == PER_WINDOW * window
    assert [client.receive_pushes()[-1]["unsubscribe"]["code"] for client in everybody] == [2500] * 10
    make_gap(harness)
    assert len(harness.node.work.healing) == 0


def test_no_limit_tells_everybody_at_once() -> None:
    """The limit 0 means no limit."""
    harness, everybody = clients(rate=0)
    make_gap(harness)
    assert told(everybody) == 10


def test_waiting_subscription_gets_nothing_more() -> None:
    """Otherwise the client would see a publication after the missing ones."""
    harness, everybody = clients()
    make_gap(harness)
    harness.publish("news", "after")
    harness.advance_time(2)
    for client in everybody:
        assert [list(push)[1] for push in client.receive_pushes()] == ["unsubscribe"]


def test_subscription_that_ends_while_it_waits_is_dropped() -> None:
    """The client has unsubscribed, or its session has ended. Nothing of them is kept."""
    harness, everybody = clients()
    make_gap(harness)
    waiting = [client for client in everybody if "news" in client.session.subscriptions]
    notices = waiting[0].session.context.gap_notices
    assert len(notices) == 8
    for client in waiting[:3]:
        client.request("unsubscribe", channel="news")
        client.request("subscribe", channel="news")
    for client in waiting[3:6]:
        client.drop_connection()
    assert len(notices) == 2
    harness.advance_time(2)
    assert all("news" in client.session.subscriptions for client in waiting[:3])
    assert [client.receive_pushes()[-1]["unsubscribe"]["code"] for client in waiting[6:]] == [2500, 2500]
    assert len(notices) == 0


def test_notices_are_sent_in_random_order() -> None:
    """The random number chooses among those that wait."""
    harness, everybody = clients()
    harness.random_value = 0.999
    make_gap(harness)
    harness.advance_time(WINDOW_S, WINDOW_S)
    assert ["news" in client.session.subscriptions for client in everybody] == [False] * 2 + [True] * 6 + [False] * 2


def test_session_with_several_gaps_connects_again_once() -> None:
    """The other notices of its server-side subscriptions are dropped."""
    harness = NodeHarness(with_history(), gap_rate_limit=RATE)
    identity: dict[str, Any] = {"channels": grants_for("a", "b", "c", "d")}
    client = harness.connect("ann", **identity)
    for channel in "abcd":
        make_gap(harness, channel)
    harness.advance_time(1)
    assert client.disconnect_code == 3010
    assert len(client.session.context.gap_notices) == 0
