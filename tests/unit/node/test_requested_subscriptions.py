"""Subscribe messages of the server API while the engine fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from beaconfire.base.errors import INTERNAL, CommandError, EngineUnavailable
from beaconfire.model.events import WorkDropped
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.node.cluster import Selector, SubscribeSessions, UnsubscribeSessions
from beaconfire.node.requested_subscriptions import TRIES_MAX
from beaconfire.policy.no_opinion import NoOpinion
from tests.unit.kit import RECOVERABLE, HarnessClient, NodeHarness, settle


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
    for number in range(TRIES_MAX):
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


# --- handlers that take their time


class SlowSubscribes(NoOpinion):
    """Each decision about a subscribe waits for its answer: an error to raise, or None."""

    suspending = frozenset({"subscribe"})

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[None]] = []

    async def subscribe(self, *arguments: Any) -> SubscriptionGrant | None:
        self.answers.append(asyncio.get_running_loop().create_future())
        await self.answers[-1]
        return None


async def connect(harness: NodeHarness) -> HarnessClient:
    """A client of ann. Its connect is a task, because it may ask the same handler."""
    harness.tokens.connections.known["ann"] = Identity(user="ann")
    client = harness.open_session()
    client.send("connect", token="ann")
    await settle()
    client.receive()
    return client


def run_slowly(scenario: Callable[[SlowSubscribes, NodeHarness], Coroutine[Any, Any, None]]) -> None:
    async def play() -> None:
        policy = SlowSubscribes()
        await scenario(policy, NodeHarness(RECOVERABLE, policy=policy, channel_limit=1))

    asyncio.run(play())


SUBSCRIBE = SubscribeSessions(Selector(user="ann"), "news")


def test_handler_of_a_subscribe_message_may_suspend() -> None:
    """Also with an engine that never suspends."""

    async def scenario(policy: SlowSubscribes, harness: NodeHarness) -> None:
        client = await connect(harness)
        harness.send_control(SUBSCRIBE)
        await settle()
        policy.answers[0].set_result(None)
        await settle()
        assert subscribed(client) == ["news"]

    run_slowly(scenario)


def test_unsubscribe_message_ends_a_subscribe_whose_decision_is_being_made() -> None:
    """The two messages take effect in their order. A failure of the decision is not repeated."""

    async def scenario(policy: SlowSubscribes, harness: NodeHarness) -> None:
        client = await connect(harness)
        for channel in ("", "news"):
            harness.send_control(SUBSCRIBE)
            await settle()
            harness.send_control(UnsubscribeSessions(Selector(user="ann"), channel))
        policy.answers[0].set_result(None)
        policy.answers[1].set_exception(CommandError(INTERNAL))
        await settle()
        harness.advance_time(20)
        await settle()
        assert (client.session.subscriptions, len(policy.answers)) == ({}, 2)

    run_slowly(scenario)


def test_two_subscribe_messages_whose_decisions_fail_are_repeated_once() -> None:
    """The newer one, whichever fails first."""

    async def scenario(policy: SlowSubscribes, harness: NodeHarness) -> None:
        client = await connect(harness)
        for _ in range(2):
            harness.send_control(SUBSCRIBE)
        await settle()
        for answer in reversed(policy.answers):
            answer.set_exception(CommandError(INTERNAL))
            await settle()
        harness.advance_time(1)
        await settle()
        [repeated] = policy.answers[2:]
        repeated.set_result(None)
        await settle()
        harness.advance_time(20)
        assert (subscribed(client), len(policy.answers)) == (["news"], 3)

    run_slowly(scenario)


def test_limit_of_channels_is_checked_after_a_slow_decision() -> None:
    """Two decisions of one session may be made at the same time."""

    async def scenario(policy: SlowSubscribes, harness: NodeHarness) -> None:
        client = await connect(harness)
        for channel in ("news", "sport"):
            harness.send_control(SubscribeSessions(Selector(user="ann"), channel))
        await settle()
        for answer in policy.answers:
            answer.set_result(None)
            await settle()
        assert list(client.session.subscriptions) == ["news"]

    run_slowly(scenario)
