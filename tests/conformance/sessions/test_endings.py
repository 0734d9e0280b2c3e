"""How subscriptions and sessions end, in every protocol, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any, Final

import pytest

from beaconfire.base.errors import FORCE_RECONNECT, EngineUnavailable
from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.node.cluster import (
    DisconnectSessions,
    RefreshSessions,
    Selector,
    SubscribeSessions,
    UnsubscribeSessions,
)
from tests.conformance.sessions.client import Client, give_token
from tests.conformance.sessions.drivers import PROTOCOLS, Bench, Feature, ProtocolUnderTest, with_features
from tests.conformance.sessions.neutral import (
    Ended,
    Expires,
    History,
    Published,
    Refresh,
    Rpc,
    Started,
    SubRefresh,
    Subscribe,
)
from tests.conformance.sessions.slow_policy import SlowPolicy
from tests.unit.kit import OPEN, NodeHarness, settle
from tests.unit.session.operations.support import UNIX_S

EVERYTHING: Final = ChannelOptions(
    allow_subscribe_for_client=True,
    allow_history_for_client=True,
    presence=True,
    join_leave=True,
    force_push_join_leave=True,
    history_size=10,
    history_ttl=Seconds(300),
    force_recovery=True,
)


def keep_alive(bench: Bench, client: Client, seconds: float) -> None:
    """Time passes, and the client does what the protocol expects of it."""
    passed = 0.0
    while passed < seconds and not client.disconnect_code:
        client.keep_alive()
        step = min(4.0, seconds - passed)
        bench.harness.advance_time(step)
        passed += step


# --- control messages


@with_features()
def test_server_ends_a_subscription(protocol: ProtocolUnderTest) -> None:
    """The client is told with code 2000, and gets nothing of the channel afterwards."""
    bench = Bench(protocol)
    client = bench.connect("ann", "news")
    bench.harness.send_control(UnsubscribeSessions(Selector(user="ann"), "news"))
    bench.harness.publish("news", 1)
    assert client.receive() == [Ended("news", 2000)]
    assert client.disconnect_code == 0


@with_features()
def test_server_makes_a_subscription(protocol: ProtocolUnderTest) -> None:
    """The client is told before it gets anything of the channel, once. What it subscribes to itself stays as it is."""

    async def scenario() -> None:
        bench = Bench(protocol)
        harness = bench.harness
        client = bench.connect("ann", "sport")
        harness.calls.hold("attach")
        for channel in ("news", "sport", "news"):
            harness.send_control(SubscribeSessions(Selector(user="ann"), channel))
        harness.publish("news", 1)
        await settle()
        assert client.receive() == []
        harness.calls.release("attach")
        await settle()
        harness.publish("news", 2)
        assert client.receive() == [Started("news"), Published("news", 2)]

    asyncio.run(scenario())


@with_features()
def test_server_ends_a_session(protocol: ProtocolUnderTest) -> None:
    """With the code of the control message."""
    bench = Bench(protocol)
    client = bench.connect("ann", "news")
    bench.harness.publish("news", 1)
    bench.harness.send_control(DisconnectSessions(Selector(user="ann"), 4100, "bye"))
    bench.harness.publish("news", 2)
    assert client.publications() == [1]
    assert client.transport.closed == (4100, "bye")


@with_features()
def test_server_lets_a_session_expire(protocol: ProtocolUnderTest) -> None:
    """At once, or at a given time and `client.expired_close_delay`, with 3005."""
    bench = Bench(protocol, expired_close_delay=5)
    now, later = bench.connect("ann"), bench.connect("bob")
    bench.harness.send_control(RefreshSessions(Selector(user="ann"), expired=True))
    bench.harness.send_control(RefreshSessions(Selector(user="bob"), expire_at_unix_s=UNIX_S + 10.0))
    assert (now.disconnect_code, later.disconnect_code) == (3005, 0)
    assert later.receive() == [Expires(10)]
    keep_alive(bench, later, 14)
    assert later.disconnect_code == 0
    keep_alive(bench, later, 1)
    assert later.disconnect_code == 3005


# --- expiry


@with_features(Feature.COMMANDS)
def test_connection_that_is_refreshed_does_not_expire(protocol: ProtocolUnderTest) -> None:
    """Without a refresh the session ends with 3005 after `client.expired_close_delay`."""
    bench = Bench(protocol, expired_close_delay=5)
    client = bench.connect("ann", expire_at_unix_s=UNIX_S + 20.0, client_refresh=True)
    keep_alive(bench, client, 10)
    give_token(bench.harness, "ann", expire_at_unix_s=UNIX_S + 40.0, client_refresh=True)
    assert client.ask(Refresh("ann")).value == 30
    keep_alive(bench, client, 34)
    assert client.disconnect_code == 0
    keep_alive(bench, client, 1)
    assert client.disconnect_code == 3005


@with_features(Feature.COMMANDS)
def test_subscription_that_is_refreshed_does_not_expire(protocol: ProtocolUnderTest) -> None:
    """Without a refresh it ends with 2501 after `client.expired_sub_close_delay`. The session continues."""
    bench = Bench(protocol, ChannelOptions(), expired_sub_close_delay=5)
    client = bench.connect()
    tokens = bench.harness.tokens
    grant: dict[str, Any] = {"client_refresh": True}
    tokens.add_subscription("first", "ann", "news", expire_at_unix_s=UNIX_S + 20.0, **grant)
    tokens.add_subscription("second", "ann", "news", expire_at_unix_s=UNIX_S + 40.0, **grant)
    client.subscribe("news", token="first")
    keep_alive(bench, client, 10)
    assert client.ask(SubRefresh("news", "second")).value == 30
    keep_alive(bench, client, 34)
    assert client.receive() == []
    keep_alive(bench, client, 1)
    assert client.receive() == [Ended("news", 2501)]
    assert client.disconnect_code == 0


# --- dead peers and garbage


@with_features()
def test_living_client_stays_connected(protocol: ProtocolUnderTest) -> None:
    """For as long as it does what its protocol expects."""
    bench = Bench(protocol)
    client = bench.connect("ann", "news")
    keep_alive(bench, client, 300)
    assert client.disconnect_code == 0
    bench.harness.publish("news", 1)
    assert client.publications() == [1]


@with_features(Feature.DEAD_PEERS)
def test_dead_client_is_found(protocol: ProtocolUnderTest) -> None:
    """Within ping interval and pong timeout, with 3012, whatever is written to it."""
    bench = Bench(protocol, ping_interval=Seconds(20), pong_timeout=Seconds(8))
    client = bench.connect("ann", "news")
    keep_alive(bench, client, 40)
    for _ in range(56):
        assert client.disconnect_code == 0
        if client.harness.clock.now_s() % 4 == 0:
            bench.harness.publish("news", 1)
        bench.harness.advance_time(0.5)
        if client.disconnect_code:
            break
    assert client.disconnect_code == 3012
    assert bench.harness.recorder.limits() == ["client.pong_timeout"]


@with_features(Feature.GARBAGE_IS_FATAL)
@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff\xff", b"garbage", b"[" * 10_000])
def test_garbage_as_the_first_message_ends_the_connection(protocol: ProtocolUnderTest, data: bytes) -> None:
    """With 3501."""
    bench = Bench(protocol)
    client = bench.open()
    client.send_bytes(data)
    assert client.receive() == []
    assert client.disconnect_code == 3501
    client.drop_connection()
    registry = bench.harness.node.registry
    assert (registry.open, registry.closing, registry.unassigned) == (set(), set(), set())


@with_features(Feature.GARBAGE_IS_FATAL, Feature.COMMANDS)
@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff\xff", b"garbage", b"[" * 10_000])
def test_garbage_ends_a_connected_session(protocol: ProtocolUnderTest, data: bytes) -> None:
    """With 3501. What was published before still reaches the client."""
    bench = Bench(protocol)
    client = bench.connect("ann", "news")
    bench.harness.publish("news", 1)
    client.send_bytes(data)
    assert client.publications() == [1]
    assert client.disconnect_code == 3501


def test_session_that_ends_while_it_is_made_is_freed() -> None:
    """The lobby of the plain protocol cannot be entered. The transport still holds the session until it has closed."""
    harness = NodeHarness()
    gc.collect()
    gc.disable()
    try:
        harness.calls.fail_next("attach", EngineUnavailable("attach: no link"))
        client = harness.open_plain_session("lobby")
        assert client.disconnect_code == 3004
        client.send_text("late")
        client.drop_connection()
        session = weakref.ref(client.session)
        del client
        assert session() is None
    finally:
        gc.enable()


def test_garbage_is_an_error_of_the_plain_protocol() -> None:
    """No input ends a session of this protocol."""
    [plain] = [protocol for protocol in PROTOCOLS if protocol.name == "plain"]
    client = Bench(plain).connect()
    client.send_bytes(b"garbage")
    [reply] = client.receive()
    assert reply.error == 107  # type: ignore[union-attr]
    assert client.disconnect_code == 0


# --- nothing is left


def _by_the_server(bench: Bench, client: Client) -> None:
    client.session.end(FORCE_RECONNECT)
    client.drop_connection()


def _by_the_transport(bench: Bench, client: Client) -> None:
    client.drop_connection()


def _by_silence(bench: Bench, client: Client) -> None:
    bench.harness.advance_time(100)
    client.drop_connection()


ENDINGS: Final = [_by_the_server, _by_the_transport, _by_silence]


@with_features()
@pytest.mark.parametrize("end", ENDINGS, ids=["server", "transport", "silence"])
def test_end_of_the_session_leaves_nothing(protocol: ProtocolUnderTest, end: Callable[[Bench, Client], None]) -> None:
    """No subscription, presence, registry entry, timer or attachment. Reference counting frees the session."""
    bench = Bench(protocol, EVERYTHING)
    harness = bench.harness
    client = bench.connect("ann", "a", "b")
    harness.publish("a", 1)
    session = weakref.ref(client.session)
    gc.collect()
    gc.disable()
    try:
        end(bench, client)
        harness.advance_time(100)
        del client
        assert session() is None
    finally:
        gc.enable()
    check_nothing_is_left(bench)


def check_nothing_is_left(bench: Bench) -> None:
    harness = bench.harness
    registry, hub = harness.node.registry, harness.node.hub.statistics()
    assert (registry.open, registry.closing, registry.unassigned, registry.chosen_ids) == (set(), set(), set(), set())
    assert (registry._by_client, registry._by_secret, registry._by_user) == ({}, {}, {})
    assert (hub.channels, hub.subscriptions) == (0, 0)
    assert harness.present_clients("a") == set()
    assert (harness.attached_channels(), len(harness.timers), len(harness.node.background)) == (0, 0, 0)


@with_features(Feature.CALLS)
def test_session_that_ends_during_commands_is_freed(protocol: ProtocolUnderTest) -> None:
    """After its commands have come to their end: a call that is cancelled, a suspended one, and those that wait."""

    async def scenario() -> None:
        bench = Bench(protocol, EVERYTHING, policy=SlowPolicy("rpc"))
        harness = bench.harness
        client = bench.connect("ann", "a")
        harness.calls.hold("attach")
        for request in (Rpc("slow"), Subscribe("b"), History("a")):
            client.send(request)
        await settle()
        session = weakref.ref(client.session)
        gc.collect()
        gc.disable()
        try:
            _by_the_server(bench, client)
            del client
            harness.calls.release("attach")
            await settle()
            harness.advance_time(100)
            await settle()
            assert session() is None
        finally:
            gc.enable()
        assert len(asyncio.all_tasks()) == 1
        check_nothing_is_left(bench)

    asyncio.run(scenario())


@with_features()
def test_server_side_subscription_after_the_end_is_not_made(protocol: ProtocolUnderTest) -> None:
    """The control message waits for the engine while the session ends."""

    async def scenario() -> None:
        bench = Bench(protocol, OPEN)
        harness = bench.harness
        client = bench.connect()
        harness.calls.hold("attach")
        harness.send_control(SubscribeSessions(Selector(user="ann"), "news"))
        await settle()
        client.session.end(FORCE_RECONNECT)
        harness.calls.release("attach")
        await settle()
        assert client.receive() == []
        assert harness.node.hub.statistics().subscriptions == 0

    asyncio.run(scenario())


@with_features(Feature.COMMANDS)
@pytest.mark.parametrize("call", ["attach", "history", "presence_add"])
def test_session_that_ends_during_a_subscribe_leaves_nothing(protocol: ProtocolUnderTest, call: str) -> None:
    """Whatever step of the subscribe waits for the engine."""

    async def scenario() -> None:
        bench = Bench(protocol, EVERYTHING)
        harness = bench.harness
        client = bench.connect()
        session = client.session
        harness.calls.hold(call)
        client.send(Subscribe("a"))
        await settle()
        client.drop_connection()
        session.end(FORCE_RECONNECT)
        harness.advance_time(100)
        harness.calls.release(call)
        await settle()
        harness.advance_time(100)
        await settle()
        check_nothing_is_left(bench)
        assert not any(call.startswith("announce") for call in harness.calls.completed)

    asyncio.run(scenario())


@with_features()
@pytest.mark.parametrize("call", ["presence_remove", "announce"])
def test_slow_engine_gets_the_leave_of_a_session_that_has_ended(protocol: ProtocolUnderTest, call: str) -> None:
    """The work goes on in the background, and then nothing is left."""

    async def scenario() -> None:
        bench = Bench(protocol, EVERYTHING)
        harness = bench.harness
        client = bench.connect("ann", "a")
        session = client.session
        harness.calls.hold(call)
        client.drop_connection()
        session.end(FORCE_RECONNECT)
        await settle()
        assert client.receive() == []
        harness.calls.release(call)
        await settle()
        harness.advance_time(100)
        await settle()
        check_nothing_is_left(bench)

    asyncio.run(scenario())
