"""Subscriptions, publishers and the schedule: every worker computes the same."""

from __future__ import annotations

import pytest

from beaconfire.loadtest.plan import PUBLISHERS_MAX, Plan, complete_url
from beaconfire.loadtest.schedule import Schedule, message_count

PLANS = [
    Plan(url="ws://h/", connections=connections, channels=channels, rooms=rooms, workers=workers)
    for connections, channels, rooms, workers in (
        (1, 1, False, 1),
        (10, 1, False, 3),
        (10, 4, False, 2),
        (3, 5, False, 3),
        (10, 3, True, 1),
        (100, 7, True, 4),
        (6, 6, True, 3),
        (100, 10, True, 10),
    )
]


@pytest.mark.parametrize("plan", PLANS, ids=repr)
def test_publishers_are_subscribers_of_their_channel(plan: Plan) -> None:
    """Each channel has the same number of different publishers, and all are subscribed to the channel."""
    assert plan.publishers <= PUBLISHERS_MAX
    for channel in range(plan.channels):
        turns = [plan.publisher(channel + turn * plan.channels) for turn in range(plan.publishers)]
        assert len(set(turns)) == plan.publishers
        assert all(channel in plan.channels_of(connection) for connection in turns)
        assert plan.publisher(channel + plan.period) == turns[0]


@pytest.mark.parametrize("plan", PLANS, ids=repr)
def test_workers_share_connections_and_messages(plan: Plan) -> None:
    """Each connection belongs to one worker. Each message is published by one worker, in order, when it is due."""
    connections = [number for worker in range(plan.workers) for number in plan.connections_of(worker)]
    assert sorted(connections) == list(range(plan.connections))
    published = []
    for worker in range(plan.workers):
        schedule = Schedule(plan, worker, start_ns=5_000, rate=100, duration_s=2)
        taken = list(schedule.take(10**12))
        assert taken == sorted(taken)
        assert all(plan.publisher(message) in plan.connections_of(worker) for message, _ in taken)
        assert schedule.next_message is None
        published += taken
    assert sorted(published) == [(message, 5_000 + message * 10_000_000) for message in range(200)]


def test_the_schedule_does_not_depend_on_when_messages_are_taken() -> None:
    """A message that is taken late keeps its due time. No message is taken early or twice."""
    schedule = Schedule(PLANS[0], 0, start_ns=0, rate=1000, duration_s=1)
    assert schedule.next_due_ns == 0
    assert list(schedule.take(999_999)) == [(0, 0)]
    assert schedule.next_due_ns == 1_000_000
    assert list(schedule.take(3_500_000)) == [(1, 1_000_000), (2, 2_000_000), (3, 3_000_000)]
    schedule.end()
    assert list(schedule.take(10**12)) == []
    assert schedule.next_message is None


def test_rounding_errors_do_not_add_up() -> None:
    """After an hour at a rate that does not divide a second, the due time is exact."""
    schedule = Schedule(PLANS[0], 0, start_ns=0, rate=3, duration_s=3600)
    assert schedule.due_ns(3 * 3600) == 3600 * 10**9
    assert message_count(3, 3600) == 3 * 3600
    assert message_count(0.1, 1) == 1


def test_secrets_are_not_in_texts() -> None:
    """Neither tokens, nor user, password and query of the URL."""
    plan = Plan(url="ws://ann:hush@h:1/c?token=hush", connections=1, token_secret="hush", tokens=("hush",))
    assert "hush" not in repr(plan)
    assert plan.public_url == "ws://h:1/c"


def test_urls() -> None:
    """The usual path is added. A text that is not a WebSocket URL is refused with an example."""
    assert complete_url("ws://h:8000") == "ws://h:8000/connection/websocket"
    assert complete_url("wss://h/?a=b") == "wss://h/connection/websocket?a=b"
    assert complete_url("ws://h/own/path") == "ws://h/own/path"
    for wrong in ("localhost:8000", "http://h/", "ws://", "ws://h:99999/", "ws://h:x/", ""):
        with pytest.raises(ValueError, match="ws://localhost:8000/connection/websocket"):
            complete_url(wrong)
