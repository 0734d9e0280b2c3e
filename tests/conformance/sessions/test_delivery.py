"""What a subscriber receives, in every protocol."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from beaconfire.base.units import Seconds, Size
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.position import StreamPosition
from tests.conformance.sessions.client import published
from tests.conformance.sessions.drivers import Bench, Feature, ProtocolUnderTest, with_features
from tests.conformance.sessions.neutral import (
    Ended,
    Joined,
    Left,
    Presence,
    Published,
    Reply,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from tests.unit.kit import OPEN, RECOVERABLE, WITH_PRESENCE, settle
from tests.unit.session.operations.support import lose_publication

ALL_STEPS: Final = ChannelOptions(
    allow_subscribe_for_client=True,
    presence=True,
    join_leave=True,
    force_push_join_leave=True,
    history_size=10,
    history_ttl=Seconds(300),
    force_recovery=True,
)
"""A subscribe makes every call to the engine: attach, history, presence_add and announce."""


SHORT_HISTORY: Final = ChannelOptions(
    allow_subscribe_for_client=True, history_size=1, history_ttl=Seconds(300), force_recovery=True
)
"""History holds one publication, so a lost one cannot be read again."""


@with_features()
@pytest.mark.parametrize("options", [OPEN, RECOVERABLE], ids=["no history", "history"])
def test_subscribers_get_publications_of_others_in_order_and_once(
    protocol: ProtocolUnderTest, options: ChannelOptions
) -> None:
    """Whether they are published in one turn of the event loop or in several."""
    bench = Bench(protocol, options)
    clients = [bench.connect("ann", "news"), bench.connect("bob", "news"), bench.connect("cid", "sport")]
    bench.harness.publish("news", 1, 2)
    bench.harness.run_scheduled()
    bench.harness.publish("news", 3)
    assert [client.publications() for client in clients] == [[1, 2, 3], [1, 2, 3], []]


@with_features()
def test_slow_reader_gets_everything_when_it_reads_again(protocol: ProtocolUnderTest) -> None:
    """While its transport takes nothing, publications wait in order."""
    bench = Bench(protocol)
    client = bench.connect("ann", "news")
    client.transport.writable = False
    bench.harness.publish("news", 1, 2)
    assert client.receive() == []
    client.transport.writable = True
    client.session.on_writable()
    bench.harness.publish("news", 3)
    assert client.publications() == [1, 2, 3]


@with_features(Feature.COMMANDS)
@pytest.mark.parametrize("call", ["attach", "history", "presence_add"])
def test_nothing_of_a_channel_comes_before_its_subscribe_reply(protocol: ProtocolUnderTest, call: str) -> None:
    """Also with a slow engine. Later publications follow the reply in order, and none is missing."""

    async def scenario() -> None:
        bench = Bench(protocol, ALL_STEPS)
        harness = bench.harness
        client = bench.connect()
        harness.calls.hold(call)
        ref = client.send(Subscribe("news"))
        for number in range(3):
            harness.publish("news", number)
            await settle()
            assert client.receive() == []
        harness.calls.release(call)
        await settle()
        harness.publish("news", 3)
        reply, *others = client.receive()
        assert isinstance(reply, Reply)
        assert reply.ref == ref
        assert isinstance(reply.value, Subscribed)
        assert reply.value.position is not None
        publications = [message for message in others if not isinstance(message, Joined)]
        assert published(publications) == list(range(reply.value.position.offset, 4))
        assert others.count(Joined("news", client.id)) == 1

    asyncio.run(scenario())


@with_features(Feature.COMMANDS)
@pytest.mark.parametrize("slow", [False, True], ids=["quick engine", "slow engine"])
def test_nothing_of_a_channel_comes_after_its_unsubscribe_reply(protocol: ProtocolUnderTest, slow: bool) -> None:
    """What was published before comes before the reply."""

    async def scenario() -> None:
        bench = Bench(protocol, ALL_STEPS)
        harness = bench.harness
        client, other = bench.connect("ann", "news"), bench.connect("bob", "news")
        client.receive()
        for call in ("presence_remove", "announce") if slow else ():
            harness.calls.hold(call)
        harness.publish("news", 1)
        ref = client.send(Unsubscribe("news"))
        harness.publish("news", 2)
        await settle()
        assert client.receive() == [Published("news", 1, 1), Reply(ref)]
        other.receive()
        for call in ("presence_remove", "announce") if slow else ():
            harness.calls.release(call)
        await settle()
        harness.publish("news", 3)
        assert client.receive() == []
        assert set(other.receive()) == ({Left("news", client.id)} if slow else set()) | {Published("news", 3, 3)}

    asyncio.run(scenario())


# --- recovery


@with_features(Feature.COMMANDS)
@pytest.mark.parametrize(("since", "missed"), [(0, (1, 2, 3)), (2, (3,)), (3, ())])
def test_client_with_a_position_gets_what_it_has_missed(
    protocol: ProtocolUnderTest, since: int, missed: tuple[int, ...]
) -> None:
    """In the reply. Later publications continue from there."""
    bench = Bench(protocol, RECOVERABLE)
    bench.harness.publish("news", 1, 2, 3)
    client = bench.connect()
    subscribed = client.subscribe("news", since=StreamPosition(since, "epoch1"))
    assert subscribed == Subscribed(StreamPosition(3, "epoch1"), True, missed)
    bench.harness.publish("news", 4)
    assert client.receive() == [Published("news", 4, 4)]


@with_features(Feature.COMMANDS)
@pytest.mark.parametrize("since", [StreamPosition(1, "epoch1"), StreamPosition(12, "another epoch")])
def test_client_learns_that_it_cannot_recover(protocol: ProtocolUnderTest, since: StreamPosition) -> None:
    """The reply has no publications, and the position from which the subscription continues."""
    bench = Bench(protocol, RECOVERABLE)
    bench.harness.publish("news", *range(12))
    subscribed = bench.connect().subscribe("news", since=since)
    assert subscribed == Subscribed(StreamPosition(12, "epoch1"), False, ())


@with_features(Feature.COMMANDS)
def test_large_recovery_comes_in_pieces(protocol: ProtocolUnderTest) -> None:
    """Everything comes in order and once, while publishing goes on, and nothing that waits is larger than one piece."""

    async def scenario() -> None:
        bench = Bench(protocol, RECOVERABLE, reply_max_size=Size(330))
        harness = bench.harness
        harness.publish("news", *("x" * 98 + str(number) for number in range(7)))
        client = bench.connect()
        subscribed = client.subscribe("news", since=StreamPosition(0, "epoch1"))
        assert subscribed.recovered
        assert len(subscribed.publications) == 2
        found = list(subscribed.publications)
        for number in range(7, 10):
            harness.publish("news", "x" * 98 + str(number))
            await settle()
            found += client.publications()
        for _ in range(10):
            await settle()
            found += client.publications()
        assert [str(data)[-1] for data in found] == [str(number) for number in range(10)]

    asyncio.run(scenario())


@with_features(Feature.COMMANDS)
def test_client_is_told_about_a_gap(protocol: ProtocolUnderTest) -> None:
    """The subscription ends with 2500 before any later publication, and the client subscribes again."""
    bench = Bench(protocol, SHORT_HISTORY)
    client = bench.connect("ann", "news")
    lose_publication(bench.harness)
    assert client.receive() == [Ended("news", 2500)]
    subscribed = client.subscribe("news", since=StreamPosition(0, "epoch1"))
    assert subscribed == Subscribed(StreamPosition(2, "epoch1"), False, ())
    bench.harness.publish("news", "more")
    assert client.publications() == ["more"]


@with_features()
def test_gap_of_a_server_side_subscription_ends_the_session(protocol: ProtocolUnderTest) -> None:
    """With 3010: the client connects again and recovers."""
    bench = Bench(protocol, SHORT_HISTORY)
    client, other = bench.connect("ann", channels={"news": SubscriptionGrant()}), bench.connect("bob", "sport")
    lose_publication(bench.harness)
    assert client.receive() == []
    assert (client.disconnect_code, other.disconnect_code) == (3010, 0)


# --- presence


@with_features(Feature.COMMANDS)
def test_subscribers_are_present_and_others_see_them_come_and_go(protocol: ProtocolUnderTest) -> None:
    """Joins and leaves come once, and presence changes before they do."""
    bench = Bench(protocol, WITH_PRESENCE)
    ann = bench.connect("ann", "news")
    bob = bench.connect("bob", "news")
    assert ann.receive() == [Joined("news", bob.id)]
    assert ann.ask(Presence("news")).value == {ann.id, bob.id}
    assert bob.ask_code(Unsubscribe("news")) == 0
    assert ann.receive() == [Left("news", bob.id)]
    assert ann.ask(Presence("news")).value == {ann.id}
    assert bob.receive() == []


@with_features()
def test_end_of_a_session_announces_the_leave(protocol: ProtocolUnderTest) -> None:
    """Whatever the way of the end."""
    bench = Bench(protocol, WITH_PRESENCE)
    ann = bench.connect("ann", "news")
    for user in ("bob", "cid"):
        other = bench.connect(user, "news")
        other_id = other.id
        assert ann.receive() == [Joined("news", other_id)]
        other.drop_connection()
        if Feature.MOVES in protocol.features:
            assert ann.receive() == []
            for _ in range(13):
                ann.keep_alive()
                bench.harness.advance_time(5)
        assert ann.receive() == [Left("news", other_id)]
    assert bench.harness.present_clients("news") == {ann.id}


@with_features(Feature.COMMANDS)
def test_client_that_subscribes_again_stays_present(protocol: ProtocolUnderTest) -> None:
    """A slow removal of its earlier presence does not remove the present one."""

    async def scenario() -> None:
        bench = Bench(protocol, WITH_PRESENCE)
        client = bench.connect("ann", "news")
        bench.harness.calls.hold("presence_remove")
        client.send(Unsubscribe("news"))
        await settle()
        client.send(Subscribe("news"))
        await settle()
        bench.harness.calls.release("presence_remove")
        await settle()
        assert set(client.session.subscriptions) == {"news"}
        assert bench.harness.present_clients("news") == {client.id}

    asyncio.run(scenario())
