"""Every decision asks the policy. A decision that may suspend has a deadline, and ends with its session."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.errors import PERMISSION_DENIED, CommandError
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.events import InternalError
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.node.cluster import Selector, SubscribeSessions
from beaconfire.policy.no_opinion import NoOpinion
from beaconfire.policy.port import DECISIONS, ConnectionAttempt, PublicationAttempt, Via
from tests.fakes.transport import HANDSHAKE
from tests.unit.kit import NodeHarness, run, settle

EVERYTHING = ChannelOptions(
    allow_subscribe_for_client=True,
    allow_publish_for_client=True,
    allow_history_for_client=True,
    allow_presence_for_client=True,
    presence=True,
    history_size=10,
    history_ttl=300,  # type: ignore[arg-type]  # seconds
)


class Recorder(NoOpinion):
    """Records what it is asked, and refuses what it is told to."""

    def __init__(self, refused: str = "") -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.refused = refused

    def _ask(self, decision: str, *details: Any) -> None:
        self.asked.append((decision, *details))
        if decision == self.refused:
            raise CommandError(PERMISSION_DENIED, "refused by the recorder")

    async def connect(self, attempt: ConnectionAttempt) -> Identity | None:
        self._ask("connect", attempt.client, attempt.handshake)
        return None

    async def subscribe(self, caller: Any, request: Any, namespace: Any, via: Via, proposed: Any) -> Any:
        self._ask("subscribe", caller.client, request.channel, via)
        return None

    async def publish(self, attempt: PublicationAttempt) -> Raw | None:
        self._ask("publish", attempt.caller and attempt.caller.client, attempt.channel, attempt.via, attempt.subscribed)
        return None

    async def presence(self, caller: Any, channel: str, namespace: Any, subscribed: bool) -> bool | None:
        self._ask("presence", caller.client, channel, subscribed)
        return None

    async def history(self, caller: Any, channel: str, namespace: Any, subscribed: bool) -> bool | None:
        self._ask("history", caller.client, channel, subscribed)
        return None


def test_every_command_asks_every_policy() -> None:
    """Also reading presence and history, which the configured rules permit."""
    recorder = Recorder()
    harness = NodeHarness(EVERYTHING, policy=recorder)
    client = harness.connect("ann")
    client.request("subscribe", channel="news")
    client.request("publish", channel="news", data=1)
    client.request("publish", channel="sport", data=1)
    client.request("presence", channel="news")
    client.request("presence_stats", channel="sport")
    client.request("history", channel="news")
    assert recorder.asked == [
        ("connect", client.id, HANDSHAKE),
        ("subscribe", client.id, "news", Via.COMMAND),
        ("publish", client.id, "news", Via.COMMAND, True),
        ("publish", client.id, "sport", Via.COMMAND, False),
        ("presence", client.id, "news", True),
        ("presence", client.id, "sport", False),
        ("history", client.id, "news", True),
    ]


@pytest.mark.parametrize(
    ("decision", "method", "request_fields"),
    [
        ("subscribe", "subscribe", {"channel": "news"}),
        ("publish", "publish", {"channel": "news", "data": 1}),
        ("presence", "presence", {"channel": "news"}),
        ("presence", "presence_stats", {"channel": "news"}),
        ("history", "history", {"channel": "news"}),
    ],
)
def test_refusal_of_a_later_policy_counts(decision: str, method: str, request_fields: dict[str, Any]) -> None:
    """The configured rules permit all of these commands."""
    client = NodeHarness(EVERYTHING, policy=Recorder(decision)).connect("ann")
    assert client.request_code(method, **request_fields) == 103


def test_server_side_channels_ask_the_policy() -> None:
    """Channels of a token, of the request, and of the server API. A refused channel is left out."""
    recorder = Recorder()
    harness = NodeHarness(EVERYTHING, policy=recorder)
    client = harness.connect("ann", channels={"granted": SubscriptionGrant()})
    harness.send_control(SubscribeSessions(Selector(user="ann"), "added"))
    assert recorder.asked[1:] == [
        ("subscribe", client.id, "granted", Via.TOKEN),
        ("subscribe", client.id, "added", Via.SERVER_API),
    ]
    recorder.refused = "subscribe"
    harness.send_control(SubscribeSessions(Selector(user="ann"), "refused"))
    other = harness.connect("bob", channels={"granted": SubscriptionGrant()})
    assert set(client.session.subscriptions) == {"granted", "added"}
    assert set(other.session.subscriptions) == set()


def test_server_api_asks_the_policy_about_publications() -> None:
    """There is no caller then."""
    recorder = Recorder()
    harness = NodeHarness(EVERYTHING, policy=recorder)
    publishing = harness.node.operations.publishing
    namespace = harness.namespaces.resolve("news")
    assert run(publishing.permit_for_api("news", namespace, Raw(b"1"))) == Raw(b"1")
    assert recorder.asked == [("publish", None, "news", Via.SERVER_API, False)]
    recorder.refused = "publish"
    with pytest.raises(CommandError, match="refused by the recorder"):
        run(publishing.permit_for_api("news", namespace, Raw(b"2")))


class Slow(NoOpinion):
    """An rpc waits until the test lets it continue."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.running: list[str] = []
        self.cancelled: list[str] = []

    @property
    def suspending(self) -> frozenset[str]:
        return frozenset({"rpc"})

    async def rpc(self, caller: Any, method: str, data: Raw) -> Raw | None:
        self.running.append(method)
        try:
            async with asyncio.timeout(60):  # fails outside of a task
                await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.append(method)
            raise
        return Raw(b'"done"')


def test_slow_rpc_delays_no_other_command() -> None:
    """Not even another rpc."""

    async def scenario() -> None:
        slow = Slow()
        client = NodeHarness(EVERYTHING, policy=slow).connect("ann", "news")
        numbers = [client.send("rpc", method="first"), client.send("unsubscribe", channel="news")]
        numbers += [client.send("rpc", method="second"), client.send("publish", channel="sport", data=1)]
        await settle()
        assert slow.running == ["first", "second"]
        assert [message["id"] for message in client.receive()] == [numbers[1], numbers[3]]
        slow.go_on.set()
        await settle()
        assert [message["id"] for message in client.receive()] == [numbers[0], numbers[2]]

    asyncio.run(scenario())


def test_calls_beyond_the_limit_wait_and_delay_later_commands() -> None:
    """So that one client cannot start any number of handlers."""

    async def scenario() -> None:
        slow = Slow()
        harness = NodeHarness(EVERYTHING, policy=slow, concurrent_calls_max=2)
        client = harness.connect("ann")
        calls = [client.send("rpc", method=method) for method in ("a", "b", "c", "d")]
        last = client.send("publish", channel="sport", data=1)
        await settle()
        assert slow.running == ["a", "b"]
        assert client.receive() == []
        assert harness.recorder.limits() == ["client.concurrent_calls_max"]
        slow.go_on.set()
        await settle()
        answered = [message["id"] for message in client.receive()]
        assert sorted(answered) == [*calls, last]
        assert answered[:2] == calls[:2]

    asyncio.run(scenario())


def test_end_of_the_session_cancels_its_decisions() -> None:
    """Nothing is left running."""

    async def scenario() -> None:
        slow = Slow()
        client = NodeHarness(EVERYTHING, policy=slow).connect("ann")
        client.send("rpc", method="first")
        client.send("rpc", method="second")
        await settle()
        client.drop_connection()
        await settle()
        assert sorted(slow.cancelled) == ["first", "second"]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


class Cancelling(NoOpinion):
    """An rpc waits for a future that the policy has cancelled itself."""

    def __init__(self, *suspending: str) -> None:
        self._suspending = frozenset(suspending)

    @property
    def suspending(self) -> frozenset[str]:
        return self._suspending

    async def rpc(self, caller: Any, method: str, data: Raw) -> Raw | None:
        answer: asyncio.Future[Raw] = asyncio.get_running_loop().create_future()
        answer.cancel()
        return await answer


@pytest.mark.parametrize("suspending", [(), ("rpc",)])
def test_cancellation_by_the_policy_itself_is_a_failure(suspending: tuple[str, ...]) -> None:
    """Nobody has cancelled the command, so its client waits for a reply."""

    async def scenario() -> None:
        harness = NodeHarness(EVERYTHING, policy=Cancelling(*suspending))
        harness.recorder.expects_errors = True
        client = harness.connect("ann")
        number = client.send("rpc", method="first")
        await settle()
        [reply] = client.receive()
        assert (reply["id"], reply["error"]["code"]) == (number, 100)
        assert [event.where for event in harness.recorder.of(InternalError)] == ["rpc"]

    asyncio.run(scenario())


def test_decision_has_a_deadline() -> None:
    """The command gets the temporary error 100, and the session goes on."""

    async def scenario() -> None:
        slow = Slow()
        harness = NodeHarness(EVERYTHING, policy=slow, decision_timeout=3.0, debug_reasons=True)
        client = harness.connect("ann")
        number = client.send("rpc", method="first")
        await settle()
        harness.advance_time(3.0)
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
        [reply] = client.receive()
        assert (reply["id"], reply["error"]["code"], reply["error"]["temporary"]) == (number, 100, True)
        assert "client.decision_timeout" in reply["error"]["message"]
        assert harness.recorder.limits() == ["client.decision_timeout"]
        assert slow.cancelled == ["first"]
        assert client.request_code("subscribe", channel="news") == 0

    asyncio.run(scenario())


def test_names_of_decisions_are_those_of_the_port() -> None:
    """So a policy cannot misspell one without notice."""
    assert set(DECISIONS) <= {name for name in dir(NoOpinion) if not name.startswith("_")}
