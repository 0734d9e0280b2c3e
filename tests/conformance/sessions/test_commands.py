"""Commands, their replies and their limits, in every protocol that has commands."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from beaconfire.base.errors import FORCE_RECONNECT, EngineUnavailable
from beaconfire.base.units import Seconds, Size
from beaconfire.channels.options import ChannelOptions
from tests.conformance.sessions.drivers import Bench, Feature, ProtocolUnderTest, with_features
from tests.conformance.sessions.neutral import (
    History,
    Presence,
    Publish,
    Published,
    Reply,
    Request,
    Rpc,
    Subscribe,
    Unsubscribe,
)
from tests.conformance.sessions.slow_policy import SlowPolicy
from tests.unit.kit import RECOVERABLE, settle

READABLE: Final = ChannelOptions(
    allow_subscribe_for_client=True,
    allow_publish_for_client=True,
    allow_presence_for_client=True,
    allow_history_for_client=True,
    presence=True,
    history_size=10,
    history_ttl=Seconds(300),
)
CLOSED: Final = ChannelOptions(presence=True, history_size=10, history_ttl=Seconds(300))


@with_features(Feature.COMMANDS)
def test_publish_is_answered_after_it_is_stored(protocol: ProtocolUnderTest) -> None:
    """The publisher, who is subscribed, and other subscribers get the publication."""

    async def scenario() -> None:
        bench = Bench(protocol, RECOVERABLE)
        harness = bench.harness
        client, other = bench.connect("ann", "news"), bench.connect("bob", "news")
        harness.calls.hold("publish")
        ref = client.send(Publish("news", "hello"))
        await settle()
        assert client.receive() == other.receive() == []
        harness.calls.release("publish")
        await settle()
        received = client.receive()
        assert len(received) == 2
        assert set(received) == {Reply(ref), Published("news", "hello", 1)}
        assert other.receive() == [Published("news", "hello", 1)]
        assert client.ask(History("news")).value == ("hello",)

    asyncio.run(scenario())


@with_features(Feature.COMMANDS)
@pytest.mark.parametrize(
    "request_",
    [Subscribe("news"), Publish("news", 1), History("news"), Presence("news")],
    ids=["subscribe", "publish", "history", "presence"],
)
def test_command_without_permission_is_error_103(protocol: ProtocolUnderTest, request_: Request) -> None:
    """The session continues, and has changed nothing."""
    bench = Bench(protocol, CLOSED, namespaces={"open": RECOVERABLE})
    client = bench.connect()
    assert client.ask_code(request_) == 103
    assert client.ask_code(Subscribe("open:x")) == 0
    assert set(client.session.subscriptions) == {"open:x"}


@with_features(Feature.COMMANDS)
@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Subscribe("unknown:x"), 102),
        (Subscribe("news"), 105),
        (Subscribe("x" * 300), 107),
        (Presence("news"), 108),
    ],
    ids=["unknown namespace", "subscribed already", "too long a name", "no presence"],
)
def test_command_that_fails_keeps_the_session(protocol: ProtocolUnderTest, request_: Request, code: int) -> None:
    """The reply has the code of the error."""
    bench = Bench(protocol, RECOVERABLE)
    client = bench.connect("ann", "news")
    assert client.ask_code(request_) == code
    bench.harness.publish("news", 1)
    assert client.publications() == [1]


@with_features(Feature.COMMANDS)
@pytest.mark.parametrize(
    ("call", "request_"), [("publish", Publish("news", 1)), ("history", History("news")), ("attach", Subscribe("a"))]
)
def test_failure_of_the_engine_is_error_100(protocol: ProtocolUnderTest, call: str, request_: Request) -> None:
    """The client may try again."""
    bench = Bench(protocol, RECOVERABLE)
    client = bench.connect()
    bench.harness.calls.fail_next(call, EngineUnavailable(f"{call}: no link"))
    assert client.ask_code(request_) == 100
    assert client.ask_code(request_) == 0


@with_features(Feature.COMMANDS)
def test_unsubscribe_from_an_unknown_channel_succeeds(protocol: ProtocolUnderTest) -> None:
    """The client does not need to know whether the server has ended the subscription meanwhile."""
    assert Bench(protocol).connect().ask_code(Unsubscribe("news")) == 0


# --- order


@with_features(Feature.COMMANDS)
def test_commands_wait_for_a_suspended_one(protocol: ProtocolUnderTest) -> None:
    """They run in their order, each once, and what they do happens in this order."""

    async def scenario() -> None:
        bench = Bench(protocol, RECOVERABLE)
        client = bench.connect()
        bench.harness.calls.hold("attach")
        refs = [
            client.send(request)
            for request in (Subscribe("news"), Publish("news", 1), Unsubscribe("news"), Publish("news", 2))
        ]
        await settle()
        assert client.receive() == []
        assert bench.harness.calls.completed == ["verify ann"]
        bench.harness.calls.release("attach")
        await settle()
        received = client.receive()
        assert [message.ref for message in received if isinstance(message, Reply)] == refs
        assert [message for message in received if isinstance(message, Published)] == [Published("news", 1, 1)]
        stored = [call for call in bench.harness.calls.completed if call.startswith("publish")]
        assert stored == ["publish news", "publish news"]

    asyncio.run(scenario())


@with_features(Feature.SEVERAL_PER_MESSAGE)
def test_commands_of_one_message_run_in_order(protocol: ProtocolUnderTest) -> None:
    """A command that ends the session ends those after it too."""
    bench = Bench(protocol, RECOVERABLE)
    client = bench.connect()
    refs = client.send_together(Publish("news", 1), Subscribe("news"), Publish("news", 2), History("news"))
    received = client.receive()
    assert [message.ref for message in received if isinstance(message, Reply)] == refs
    assert Reply(refs[3], value=(1, 2)) in received


@with_features(Feature.COMMANDS)
def test_many_waiting_commands_pause_reading(protocol: ProtocolUnderTest) -> None:
    """At `client.command_queue_max`. Reading continues when they have run, and no command is lost."""

    async def scenario() -> None:
        bench = Bench(protocol, RECOVERABLE, command_queue_max=2)
        client = bench.connect()
        bench.harness.calls.hold("history")
        refs = [client.send(History("news")) for _ in range(3)]
        assert client.transport.reading == ["pause"]
        assert bench.harness.recorder.limits() == ["client.command_queue_max"]
        bench.harness.calls.release("history")
        await settle()
        assert client.transport.reading == ["pause", "resume"]
        assert client.receive() == [Reply(ref, value=()) for ref in refs]

    asyncio.run(scenario())


@with_features(Feature.COMMANDS)
def test_end_of_the_session_drops_the_commands_that_wait(protocol: ProtocolUnderTest) -> None:
    """The command that runs comes to its end, and its subscription is not left behind."""

    async def scenario() -> None:
        bench = Bench(protocol, RECOVERABLE)
        client = bench.connect()
        session = client.session
        bench.harness.calls.hold("attach")
        client.send(Subscribe("news"))
        client.send(Publish("news", 1))
        await settle()
        session.end(FORCE_RECONNECT)
        bench.harness.calls.release("attach")
        await settle()
        assert not any(call.startswith("publish") for call in bench.harness.calls.completed)
        assert bench.harness.node.hub.statistics().subscriptions == 0
        assert len(asyncio.all_tasks()) == 1
        assert client.receive() == []

    asyncio.run(scenario())


# --- calls of the application


@with_features(Feature.CALLS)
def test_slow_call_delays_no_other_command(protocol: ProtocolUnderTest) -> None:
    """Calls run side by side, and each gets its own reply."""

    async def scenario() -> None:
        policy = SlowPolicy("rpc")
        bench = Bench(protocol, RECOVERABLE, policy=policy)
        client = bench.connect()
        first, second = client.send(Rpc("slow", 1)), client.send(Rpc("slow", 2))
        ref = client.send(History("news"))
        await settle()
        assert client.receive() == [Reply(ref, value=())]
        policy.finish.set()
        await settle()
        assert client.receive() == [Reply(first, value=1), Reply(second, value=2)]

    asyncio.run(scenario())


@with_features(Feature.CALLS)
def test_calls_beyond_the_limit_wait(protocol: ProtocolUnderTest) -> None:
    """At most `client.concurrent_calls_max` calls run at the same time."""

    async def scenario() -> None:
        policy = SlowPolicy("rpc")
        bench = Bench(protocol, RECOVERABLE, policy=policy, concurrent_calls_max=2)
        client = bench.connect()
        refs = [client.send(request) for request in (Rpc("slow"), Rpc("slow"), Rpc("slow"), History("news"))]
        await settle()
        assert client.receive() == []
        assert bench.harness.recorder.limits() == ["client.concurrent_calls_max"]
        policy.finish.set()
        await settle()
        replies = client.receive()
        assert {reply.ref for reply in replies if isinstance(reply, Reply)} == set(refs)

    asyncio.run(scenario())


@with_features(Feature.CALLS)
def test_end_of_the_session_cancels_its_calls(protocol: ProtocolUnderTest) -> None:
    """The handler gets CancelledError, nothing is left running, and no reply is sent."""

    async def scenario() -> None:
        policy = SlowPolicy("rpc")
        bench = Bench(protocol, RECOVERABLE, policy=policy)
        client = bench.connect()
        client.send(Rpc("slow", 1))
        client.send(Rpc("slow", 2))
        await settle()
        client.session.end(FORCE_RECONNECT)
        await settle()
        assert policy.cancelled == ["rpc", "rpc"]
        assert len(asyncio.all_tasks()) == 1
        assert client.receive() == []
        assert client.disconnect_code == 3011

    asyncio.run(scenario())


@with_features(Feature.CALLS)
def test_call_of_a_session_that_has_ended_is_not_made(protocol: ProtocolUnderTest) -> None:
    """The session ends before the task of the call runs. Nothing would cancel the handler."""

    async def scenario() -> None:
        policy = SlowPolicy("rpc")
        bench = Bench(protocol, RECOVERABLE, policy=policy)
        client = bench.connect()
        client.send(Rpc("slow", 1))
        client.session.end(FORCE_RECONNECT)
        await settle()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


DECISIONS: Final[dict[str, Request]] = {
    "subscribe": Subscribe("news"),
    "publish": Publish("news", 1),
    "presence": Presence("news"),
    "history": History("news"),
}


@with_features(Feature.COMMANDS)
@pytest.mark.parametrize("decision", DECISIONS)
def test_decision_beyond_its_deadline_is_the_temporary_error_100(protocol: ProtocolUnderTest, decision: str) -> None:
    """The handler is cancelled, nothing is changed, and the next commands go on."""

    async def scenario() -> None:
        policy = SlowPolicy(decision)
        bench = Bench(protocol, READABLE, policy=policy, decision_timeout=3.0)
        client = await bench.connect_slowly()
        late, ref = client.send(DECISIONS[decision]), client.send(Unsubscribe("sport"))
        await settle()
        bench.harness.advance_time(3.0)
        await policy.when_cancelled.wait()
        await settle()
        assert client.receive() == [Reply(late, 100), Reply(ref)]
        assert policy.cancelled == [decision]
        assert bench.harness.recorder.limits() == ["client.decision_timeout"]
        assert client.session.subscriptions == {}
        policy.finish.set()
        again = client.send(DECISIONS[decision])
        await settle()
        [reply] = client.receive()
        assert isinstance(reply, Reply)
        assert (reply.ref, reply.error) == (again, 0)

    asyncio.run(scenario())


@with_features(Feature.COMMANDS)
@pytest.mark.parametrize("decision", DECISIONS)
def test_end_of_the_session_cancels_its_decision(protocol: ProtocolUnderTest, decision: str) -> None:
    """Whatever is decided. The commands after it do not run."""

    async def scenario() -> None:
        policy = SlowPolicy(decision)
        bench = Bench(protocol, READABLE, policy=policy)
        client = await bench.connect_slowly()
        client.send(DECISIONS[decision])
        client.send(Publish("news", 2))
        await settle()
        client.session.end(FORCE_RECONNECT)
        await settle()
        assert policy.cancelled == [decision]
        assert len(asyncio.all_tasks()) == 1
        assert not any(call.startswith("publish") for call in bench.harness.calls.completed)
        assert bench.harness.node.hub.statistics().subscriptions == 0

    asyncio.run(scenario())


# --- limits


@with_features(Feature.COMMANDS)
def test_more_channels_than_the_limit_are_error_106(protocol: ProtocolUnderTest) -> None:
    """The session continues, and a channel that it leaves makes room."""
    client = Bench(protocol, channel_limit=2).connect("ann", "a", "b")
    assert client.ask_code(Subscribe("c")) == 106
    assert client.ask_code(Unsubscribe("a")) == 0
    assert client.ask_code(Subscribe("c")) == 0


@with_features()
def test_slow_client_is_disconnected_with_3008(protocol: ProtocolUnderTest) -> None:
    """When more than `client.queue_max_size` waits. Other clients get everything."""
    bench = Bench(protocol, queue_max_size=Size(1000))
    slow, quick = bench.connect("ann", "news"), bench.connect("bob", "news")
    slow.transport.writable = False
    found = []
    for _ in range(30):
        bench.harness.publish("news", "x" * 50)
        found += quick.publications()
    assert (slow.disconnect_code, quick.disconnect_code) == (3008, 0)
    assert len(found) == 30
    assert bench.harness.recorder.limits() == ["client.queue_max_size"]
    assert bench.harness.node.hub.count("news") == 1


@with_features(Feature.COMMANDS)
@pytest.mark.parametrize(("count", "code"), [(10, 0), (11, 3013)])
def test_more_messages_per_second_than_the_limit_end_the_session(
    protocol: ProtocolUnderTest, count: int, code: int
) -> None:
    """With 3013. The limit is exact, and acknowledgements of the protocol count."""
    bench = Bench(protocol, message_rate_limit=10)
    client = bench.connect()
    bench.harness.clock.advance(2)
    for _ in range(count):
        if not client.disconnect_code:
            client.send(Unsubscribe("news"))
    assert client.disconnect_code == code


@with_features(Feature.COMMANDS)
def test_more_bytes_per_second_than_the_limit_end_the_session(protocol: ProtocolUnderTest) -> None:
    """With 3013."""
    bench = Bench(protocol, byte_rate_limit=Size(200))
    client = bench.connect()
    bench.harness.clock.advance(2)
    client.send(Publish("news", "x" * 200))
    assert client.disconnect_code == 3013
    assert bench.harness.recorder.limits() == ["client.byte_rate_limit"]
