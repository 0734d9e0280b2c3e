"""How sessions begin, in every protocol."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from beaconfire.channels.options import ChannelOptions
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.policy.tokens import TokenExpired
from tests.conformance.sessions.client import give_token, published
from tests.conformance.sessions.drivers import Bench, Feature, ProtocolUnderTest, with_features
from tests.conformance.sessions.neutral import Connected, Publish, Published, Subscribe
from tests.unit.kit import OPEN, RECOVERABLE, settle

WITHOUT_TOKEN: Final = {
    "centrifuge-json": 3501,
    "centrifuge-protobuf": 3501,
    "unidirectional": 3501,
    "plain": 101,
    "parcel": 101,
}
"""The code that a client gets that must have a token and has none."""

EXPIRED_TOKEN: Final = {
    "centrifuge-json": 109,
    "centrifuge-protobuf": 109,
    "unidirectional": 3005,
    "plain": 109,
    "parcel": 109,
}


@with_features()
def test_token_gives_the_session_its_identity(protocol: ProtocolUnderTest) -> None:
    """The reply has the client id under which the session is known."""
    bench = Bench(protocol)
    client = bench.open()
    connected = client.connect(give_token(bench.harness, "ann"))
    session = client.session
    assert connected == Connected(session.client, {})
    assert session.identity == Identity(user="ann")
    assert bench.harness.node.registry.by_user("ann") == [session]


@with_features()
def test_client_without_a_token_is_anonymous_if_that_is_allowed(protocol: ProtocolUnderTest) -> None:
    """The session has no user."""
    client = Bench(protocol).open()
    client.connect("")
    assert client.session.user == ""


@with_features()
def test_client_without_a_token_is_refused_otherwise(protocol: ProtocolUnderTest) -> None:
    """Nobody is connected."""
    bench = Bench(protocol, allow_anonymous=False)
    assert bench.open().connect_code("") == WITHOUT_TOKEN[protocol.name]
    assert len(bench.harness.node.registry) == 0


NOT_CONNECTED: Final = {"centrifuge-json": 3501, "centrifuge-protobuf": 3501, "plain": 101, "parcel": 3501}
"""The code that a client gets that sends a command without an identity."""


@with_features(Feature.COMMANDS)
@pytest.mark.parametrize("refused", [False, True], ids=["new", "refused"])
def test_client_that_is_not_connected_can_do_nothing(protocol: ProtocolUnderTest, refused: bool) -> None:
    """Whether its first message is a command, or it sends one after a connect that was refused."""
    bench = Bench(protocol, allow_anonymous=False)
    bench.harness.tokens.connections.known["old"] = TokenExpired("it has expired")
    listener = bench.connect("ann", "news")
    for request in (Subscribe("news"), Publish("news", "hello")):
        client = bench.open()
        if refused:
            assert client.connect_code("old") == EXPIRED_TOKEN[protocol.name]
        assert client.ask_code(request) == NOT_CONNECTED[protocol.name]
        registry = bench.harness.node.registry
        assert registry.by_user("") == []
        assert [session for session in registry.open if session.subscriptions] == [listener.session]
    assert listener.publications() == []


@with_features()
def test_invalid_token_ends_the_session_with_3500(protocol: ProtocolUnderTest) -> None:
    """Nothing of the session is left when the transport has closed."""
    bench = Bench(protocol)
    client = bench.open()
    assert client.connect_code("forged") == 3500
    client.drop_connection()
    registry = bench.harness.node.registry
    assert (registry.open, registry.closing, len(registry)) == (set(), set(), 0)


@with_features()
def test_client_with_an_expired_token_learns_that_it_needs_another_one(protocol: ProtocolUnderTest) -> None:
    """By an error, or by the code of the disconnect."""
    bench = Bench(protocol)
    bench.harness.tokens.connections.known["old"] = TokenExpired("it has expired")
    assert bench.open().connect_code("old") == EXPIRED_TOKEN[protocol.name]


@with_features()
def test_connection_without_a_first_message_is_closed(protocol: ProtocolUnderTest) -> None:
    """After `client.stale_close_delay`, with 3502."""
    bench = Bench(protocol, stale_close_delay=10)
    client = bench.open()
    bench.harness.advance_time(9.5)
    assert client.disconnect_code == 0
    bench.harness.advance_time(1)
    assert client.disconnect_code == 3502
    assert bench.harness.recorder.limits() == ["client.stale_close_delay"]
    client.drop_connection()
    registry = bench.harness.node.registry
    assert (registry.open, registry.closing, registry.unassigned) == (set(), set(), set())


@with_features()
def test_channels_of_the_token_are_subscribed_before_the_reply(protocol: ProtocolUnderTest) -> None:
    """The reply names them, with their positions."""
    bench = Bench(protocol, RECOVERABLE)
    bench.harness.publish("news", 1, 2)
    client = bench.open()
    token = give_token(bench.harness, "ann", channels={"news": SubscriptionGrant()})
    [subscribed] = client.connect(token).subscriptions.values()
    assert subscribed.position == (2, "epoch1")
    assert subscribed.publications == ()
    bench.harness.publish("news", 3)
    assert client.receive() == [Published("news", 3, 3)]


@with_features(Feature.CHANNELS_OF_CONNECT)
def test_client_may_name_channels_when_it_connects(protocol: ProtocolUnderTest) -> None:
    """Channels for which the client has no permission are left out."""
    bench = Bench(protocol, OPEN, namespaces={"closed": ChannelOptions()})
    client = bench.open()
    connected = client.connect(give_token(bench.harness, "ann"), ["news", "closed:x"])
    assert set(connected.subscriptions) == {"news"}
    bench.harness.publish("news", 1)
    assert client.publications() == [1]


@with_features()
@pytest.mark.parametrize("call", ["verify", "attach", "history"])
def test_nothing_comes_before_the_reply_to_connect(protocol: ProtocolUnderTest, call: str) -> None:
    """Also with a slow engine. What was published meanwhile follows the reply, in order and once."""

    async def scenario() -> None:
        bench = Bench(protocol, RECOVERABLE)
        harness = bench.harness
        token = give_token(harness, "ann", channels={"news": SubscriptionGrant()})
        harness.calls.hold(call)
        client = bench.open()
        client.send_connect(token)
        for number in range(3):
            harness.publish("news", number)
            await settle()
            assert client.receive() == []
        harness.calls.release(call)
        await settle()
        harness.publish("news", 3)
        connected, *others = client.receive()
        assert isinstance(connected, Connected)
        position = connected.subscriptions["news"].position
        assert position is not None
        assert published(others) == list(range(position.offset, 4))

    asyncio.run(scenario())


@with_features()
@pytest.mark.parametrize("call", ["verify", "attach", "history"])
def test_transport_that_is_lost_during_connect_leaves_nothing(protocol: ProtocolUnderTest, call: str) -> None:
    """Also in protocols whose sessions outlive a transport: this session is not connected."""

    async def scenario() -> None:
        bench = Bench(protocol, RECOVERABLE)
        harness = bench.harness
        token = give_token(harness, "ann", channels={"news": SubscriptionGrant()})
        harness.calls.hold(call)
        client = bench.open()
        client.send_connect(token)
        await settle()
        client.drop_connection()
        harness.calls.release(call)
        await settle()
        harness.advance_time(5)
        registry = harness.node.registry
        assert (registry.open, registry.closing, registry.chosen_ids, len(registry)) == (set(), set(), set(), 0)
        assert harness.node.hub.statistics().subscriptions == 0
        assert harness.attached_channels() == 0
        assert client.receive() == []

    asyncio.run(scenario())
