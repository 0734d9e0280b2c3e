"""Sessions that move to another transport: nothing is lost, nothing comes twice, and nothing is left behind."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from msgspec import Raw

from beaconfire.base.units import Size
from beaconfire.model.position import StreamPosition
from beaconfire.transports.traits import SessionTraits
from tests.conformance.sessions.client import give_token, published
from tests.conformance.sessions.drivers import start_parcel
from tests.conformance.sessions.neutral import History, Joined, Publish, Published, Reply, Subscribe, Subscribed
from tests.conformance.sessions.parcel.connection import Args
from tests.conformance.sessions.parcel.endpoint import RESUME_S, TRAITS
from tests.conformance.sessions.parcel.messages import Emit, encode, framed
from tests.conformance.sessions.parcel_client import ParcelClient
from tests.conformance.sessions.test_endings import EVERYTHING
from tests.unit.kit import RECOVERABLE, NodeHarness, settle


def connect(harness: NodeHarness, *channels: str, user: str = "ann", traits: SessionTraits = TRAITS) -> ParcelClient:
    """A client that is subscribed to these channels, and has received and acknowledged everything so far."""
    client = ParcelClient(harness, start_parcel(harness, traits), f"{user}'s own id")
    client.connect(give_token(harness, user))
    for channel in channels:
        client.subscribe(channel)
    client.receive()
    return client


def arguments(channel: str, **fields: float) -> Raw:
    return Raw(encode(Args(channel, **fields)))  # type: ignore[arg-type]


# --- what is lost arrives after the move


def test_what_was_sent_while_the_transport_was_lost_arrives_after_the_move() -> None:
    """Once and in order, before what is published later."""
    harness = NodeHarness(RECOVERABLE)
    client = connect(harness, "news")
    harness.publish("news", 1)
    assert client.publications() == [1]
    client.drop_connection()
    harness.publish("news", 2, 3)
    harness.run_scheduled()
    client.move()
    harness.publish("news", 4)
    assert client.publications() == [2, 3, 4]
    assert (client.duplicates, client.resumed) == (0, [1])


def test_messages_that_the_client_has_not_acknowledged_are_sent_again() -> None:
    """The client drops those that it has received already."""
    harness = NodeHarness()
    client = connect(harness, "news")
    client.acknowledges = False
    acked = client.last
    harness.publish("news", 1, 2)
    assert client.publications() == [1, 2]
    client.transport.writable = False  # what is written now does not reach the client
    harness.publish("news", 3)
    harness.run_scheduled()
    client.move(acked)
    assert client.publications() == [3]
    assert client.duplicates == 2


def test_messages_are_lost_between_the_server_and_the_client() -> None:
    """The transport has taken them, and the client has not read them."""
    harness = NodeHarness()
    client = connect(harness, "news")
    harness.publish("news", 1, 2)
    harness.run_scheduled()
    client.drop_connection()
    client.move()
    assert client.publications() == [1, 2]


def test_session_moves_from_a_transport_that_lives() -> None:
    """The old transport is closed without a code for the client, and each message arrives once."""
    harness = NodeHarness()
    client = connect(harness, "news")
    harness.publish("news", 1)
    old = client.move()
    harness.publish("news", 2)
    assert client.publications() == [1, 2]
    assert old.closed == (3000, "")
    assert client.disconnect_code == 0


@pytest.mark.parametrize("lost", [False, True], ids=["living", "lost"])
def test_session_moves_from_a_slow_transport(lost: bool) -> None:
    """What the old transport has not taken is not lost. Fan-out to the new transport goes on."""
    harness = NodeHarness()
    client = connect(harness, "news")
    client.transport.writable = False
    harness.publish("news", 1)
    harness.run_scheduled()
    harness.publish("news", 2)
    harness.run_scheduled()
    if lost:
        client.drop_connection()
    client.move()
    for number in (3, 4):
        harness.publish("news", number)
        harness.run_scheduled()
    assert client.publications() == [1, 2, 3, 4]
    assert harness.node.statistics().queue_bytes == 0


def test_session_moves_to_a_slow_transport() -> None:
    """Everything waits in order until this transport takes data."""
    harness = NodeHarness()
    client = connect(harness, "news")
    client.drop_connection()
    harness.publish("news", 1)
    harness.run_scheduled()
    client.move()
    client.transport.writable = False
    harness.publish("news", 2)
    harness.run_scheduled()
    client.transport.writable = True
    client.receiver.on_writable()
    assert client.publications() == [1, 2]


def test_session_may_move_again_and_again() -> None:
    """Also before the client has read anything on a transport."""
    harness = NodeHarness(RECOVERABLE)
    client = connect(harness, "news")
    for number in range(6):
        harness.publish("news", number)
        if number % 2:
            client.drop_connection()
        client.move()
    assert client.publications() == list(range(6))
    assert client.resumed == [1] * 6


@pytest.mark.parametrize("seed", range(100))
def test_everything_arrives_once_and_in_order_whatever_happens(seed: int) -> None:
    """Publications, losses, moves, slow transports and acknowledgements in a random order."""
    random = Random(seed)
    harness = NodeHarness(RECOVERABLE)
    client = connect(harness, "news")
    found: list[object] = []
    count = 0
    is_lost = False
    for _ in range(60):
        match random.choice(("publish", "publish", "turn", "lose", "move", "slow", "quick", "read", "deaf")):
            case "publish":
                harness.publish("news", count)
                count += 1
            case "turn" if harness.scheduled:
                harness.scheduled.pop(0)()
            case "lose" if not is_lost:
                client.drop_connection()
                is_lost = True
            case "move":
                client.move()
                is_lost = False
            case "slow":
                client.transport.writable = False
            case "quick" if not client.transport.writable:
                client.transport.writable = True
                client.receiver.on_writable()
            case "read":
                found += client.publications()
            case "deaf":
                client.acknowledges = not client.acknowledges
    client.move()
    assert found + client.publications() == list(range(count))
    assert client.disconnect_code == 0


def test_late_calls_of_the_old_transport_change_nothing() -> None:
    """Its data, its end, and that it takes data again."""
    harness = NodeHarness(RECOVERABLE)
    client = connect(harness, "news")
    old_receiver = client.receiver
    client.move()
    client.receive()
    client.transport.writable = False
    harness.publish("news", 1)
    old_receiver.on_data(framed(encode(Emit(99, "unsubscribe", arguments("news")))), True)
    old_receiver.on_control_frame(1_000_000_000)
    old_receiver.on_writable()
    old_receiver.on_transport_pong()
    assert old_receiver.positions() is None
    old_receiver.on_closed()
    harness.advance_time(RESUME_S / 3)
    client.keep_alive()
    client.transport.writable = True
    client.receiver.on_writable()
    assert client.receive() == [Published("news", 1, 1)]
    assert client.receiver.positions() == {"news": (1, "epoch1")}
    assert set(client.session.subscriptions) == {"news"}


# --- commands


def test_reply_to_a_command_comes_on_the_new_transport() -> None:
    """The command runs once, although the client sends its event again."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        client = connect(harness, "news")
        harness.calls.hold("publish")
        ref = client.send(Publish("news", "once"))
        await settle()
        client.drop_connection()
        client.move()
        client.send_bytes(client.encode(ref, Publish("news", "once")))
        harness.calls.release("publish")
        await settle()
        received = client.receive()
        assert sorted(map(str, received)) == sorted(map(str, [Published("news", "once", 1), Reply(ref)]))
        assert client.resumed == [ref]
        assert client.ask(History("news")).value == ("once",)

    asyncio.run(scenario())


@pytest.mark.parametrize("call", ["attach", "history", "presence_add"])
@pytest.mark.parametrize("lost", [False, True], ids=["living", "lost"])
def test_subscribe_is_finished_on_the_new_transport(call: str, lost: bool) -> None:
    """Nothing of the channel comes before the reply, and nothing is missing after it."""

    async def scenario() -> None:
        harness = NodeHarness(EVERYTHING)
        client = connect(harness)
        harness.calls.hold(call)
        ref = client.send(Subscribe("news"))
        harness.publish("news", 0)
        await settle()
        if lost:
            client.drop_connection()
        harness.publish("news", 1)
        harness.run_scheduled()
        client.move()
        harness.publish("news", 2)
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

    asyncio.run(scenario())


def test_full_command_queue_pauses_the_new_transport_too() -> None:
    """Otherwise each move would let the client queue more commands."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE, command_queue_max=2)
        client = connect(harness)
        harness.calls.hold("history")
        refs = [client.send(History("news")) for _ in range(3)]
        old = client.move()
        assert (old.reading, client.transport.reading) == (["pause"], ["pause"])
        harness.calls.release("history")
        await settle()
        assert client.transport.reading == ["pause", "resume"]
        assert client.receive() == [Reply(ref, value=()) for ref in refs]

    asyncio.run(scenario())


def test_recovery_in_pieces_continues_on_the_new_transport() -> None:
    """The recovery waits while the session has no transport."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE, reply_max_size=Size(330))
        harness.publish("news", *("x" * 98 + str(number) for number in range(7)))
        client = connect(harness)
        subscribed = client.subscribe("news", since=StreamPosition(0, "epoch1"))
        client.drop_connection()
        await settle()
        harness.run_scheduled()
        await settle()
        client.move()
        found = list(subscribed.publications)
        for _ in range(10):
            await settle()
            found += client.publications()
        assert [str(data)[-1] for data in found] == [str(number) for number in range(7)]

    asyncio.run(scenario())


def test_newest_publication_of_a_conflated_subscription_arrives_after_the_move() -> None:
    """Without another publication, and after what is sent again."""
    harness = NodeHarness()
    client = connect(harness, "sport")
    client.send_message(Emit(50, "subscribe", arguments("news", max_rate=0.0)))
    client.receive()
    client.drop_connection()
    harness.publish("sport", "a")
    harness.run_scheduled()
    for number in range(3):
        harness.publish("news", number)
        harness.run_scheduled()
    client.move()
    assert client.receive() == [Published("sport", "a"), Published("news", 2)]
