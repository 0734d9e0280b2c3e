"""Sessions between two transports: what stays, for how long, and who may take a session over."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Sequence

import pytest

from beaconfire.base.errors import CONNECTION_CLOSED
from beaconfire.base.units import Seconds, Size
from beaconfire.model.events import SessionEnded
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.node.cluster import DisconnectSessions, Selector
from beaconfire.policy.no_opinion import NoOpinion
from beaconfire.policy.port import EndedSession, EndedSubscription
from beaconfire.transports.traits import Pings, SessionTraits
from tests.conformance.sessions.client import give_token
from tests.conformance.sessions.drivers import start_parcel
from tests.conformance.sessions.neutral import Connected, Joined, Left, Subscribe
from tests.conformance.sessions.parcel.endpoint import RESUME_S
from tests.conformance.sessions.parcel_client import ParcelClient
from tests.conformance.sessions.test_moving import connect
from tests.unit.kit import WITH_PRESENCE, NodeHarness, settle

# --- the time without a transport


def test_session_without_a_transport_stays_subscribed_and_present() -> None:
    """For `SessionTraits.resume_s`. Other clients see no leave and no second join."""
    harness = NodeHarness(WITH_PRESENCE)
    client, other = connect(harness, "news"), harness.connect("bob", "news")
    client.receive()
    client.drop_connection()
    harness.advance_time(RESUME_S / 4)
    client.move()
    assert client.receive() == []
    assert [push for push in other.receive() if "push" in push] == []
    assert harness.present_clients("news") == {client.id, other.id}


def test_policy_learns_once_that_a_session_has_ended() -> None:
    """Not when its transport is lost, and not when it moves."""

    async def scenario() -> None:
        policy = EndingsRecorder()
        harness = NodeHarness(policy=policy)
        client = connect(harness, "news")
        client.drop_connection()
        client.move()
        client.drop_connection()
        await settle()
        assert policy.ended == []
        harness.advance_time(RESUME_S + 1)
        await settle()
        assert policy.ended == [(client.id, "news", 0), (client.id, "", 3000)]

    asyncio.run(scenario())


class EndingsRecorder(NoOpinion):
    """Client, channel (empty for a session) and code of each ending."""

    wants_endings = True

    def __init__(self) -> None:
        self.ended: list[tuple[str, str, int]] = []

    async def unsubscribed(self, ended: Sequence[EndedSubscription]) -> None:
        self.ended += [(entry.client, entry.channel, entry.code) for entry in ended]

    async def disconnected(self, ended: Sequence[EndedSession]) -> None:
        self.ended += [(entry.client, "", entry.code) for entry in ended]


def test_session_that_does_not_move_in_time_ends() -> None:
    """Presence and subscriptions with it, and other clients see the leave. Nothing is left."""
    harness = NodeHarness(WITH_PRESENCE)
    other = connect(harness, "news", user="bob")
    client = connect(harness, "news")
    assert other.receive() == [Joined("news", client.id)]
    session = weakref.ref(client.session)
    client.drop_connection()
    for _ in range(11):
        harness.advance_time(5)
        other.keep_alive()
    assert other.receive() == []
    gc.collect()
    gc.disable()
    try:
        harness.advance_time(5)
        assert other.receive() == [Left("news", client.id)]
        del client.receiver
        assert session() is None
    finally:
        gc.enable()
    assert harness.present_clients("news") == {other.id}
    registry = harness.node.registry
    assert (len(registry), len(registry.open), registry.closing, registry.chosen_ids) == (1, 1, set(), {other.id})
    assert [event.code for event in harness.recorder.of(SessionEnded)] == [3000]


def test_client_that_comes_back_too_late_gets_a_new_session() -> None:
    """With the same id, which is free again."""
    harness = NodeHarness(WITH_PRESENCE)
    client = connect(harness, "news")
    client.drop_connection()
    harness.advance_time(RESUME_S)
    client.last = 0
    client.move(0)
    assert client.session.subscriptions == {}
    assert client.subscribe("news").position is None
    assert harness.present_clients("news") == {client.id}


def test_new_session_with_the_same_id_stays_present() -> None:
    """A slow removal of the presence of the session before does not remove it."""

    async def scenario() -> None:
        harness = NodeHarness(WITH_PRESENCE)
        client = connect(harness, "news")
        harness.calls.hold("presence_remove")
        client.session.end(CONNECTION_CLOSED)
        await settle()
        client.last = 0
        client.move(0)
        await settle()
        client.send(Subscribe("news"))
        await settle()
        harness.calls.release("presence_remove")
        await settle()
        assert set(client.session.subscriptions) == {"news"}
        assert harness.present_clients("news") == {client.id}

    asyncio.run(scenario())


def test_too_much_for_a_session_without_a_transport_ends_it_as_slow() -> None:
    """With 3008. The session does not wait for the end of a transport that it does not have."""
    harness = NodeHarness(queue_max_size=Size(1000))
    client = connect(harness, "news")
    client.drop_connection()
    for _ in range(30):
        harness.publish("news", "x" * 50)
        harness.run_scheduled()
    registry = harness.node.registry
    assert [event.code for event in harness.recorder.of(SessionEnded)] == [3008]
    assert (registry.open, registry.closing, len(registry)) == (set(), set(), 0)


def test_server_may_end_a_session_without_a_transport() -> None:
    """A drain must not wait for it."""
    harness = NodeHarness()
    client = connect(harness, "news")
    client.drop_connection()
    harness.send_control(DisconnectSessions(Selector(user="ann"), 4100, "bye"))
    registry = harness.node.registry
    assert (registry.open, registry.closing, len(registry)) == (set(), set(), 0)


def test_messages_that_are_never_acknowledged_end_the_session_as_slow() -> None:
    """With 3008, although the transport takes them all."""
    harness = NodeHarness()
    client = connect(harness, "news")
    client.acknowledges = False
    for _ in range(30):
        harness.publish("news", "x" * 1000)
        harness.run_scheduled()
    assert client.disconnect_code == 3008
    assert harness.recorder.limits() == ["parcel.unacknowledged"]


# --- pings


def test_client_that_moves_has_a_whole_interval_for_its_next_ping() -> None:
    """Without pings the session ends with 3012 afterwards, on its transport."""
    harness = NodeHarness(ping_interval=Seconds(20), pong_timeout=Seconds(8))
    client = connect(harness)
    harness.advance_time(25)
    client.move()
    harness.advance_time(27.5)
    assert client.disconnect_code == 0
    harness.advance_time(1)
    assert client.disconnect_code == 3012


@pytest.mark.parametrize("lost", [False, True], ids=["living", "lost"])
def test_ping_on_the_old_transport_needs_no_pong(lost: bool) -> None:
    """The old transport may have taken the pong with it."""
    harness = NodeHarness(ping_interval=Seconds(20), pong_timeout=Seconds(8))
    client = connect(harness, traits=SessionTraits(Pings.TRANSPORT, resume_s=RESUME_S))
    harness.advance_time(15)
    assert client.transport.pings == 1
    if lost:
        client.drop_connection()
        harness.advance_time(30)
    client.move()
    harness.advance_time(9)
    assert client.disconnect_code == 0
    harness.advance_time(6)
    assert client.transport.pings == 1
    client.receiver.on_transport_pong()
    harness.advance_time(10)
    assert client.disconnect_code == 0


# --- who may move a session


def test_session_moves_only_with_its_secret() -> None:
    """Another secret is refused with 3507, and the session does not notice."""
    harness = NodeHarness()
    client = connect(harness, "news")
    thief = ParcelClient(harness, start_parcel(harness), client.id, "another secret")
    thief.send_connect(give_token(harness, "bob"))
    assert thief.transport.closed == (3507, "permission denied")
    harness.publish("news", 1)
    assert client.publications() == [1]
    thief.receiver.on_closed()
    assert harness.node.registry.unassigned == set()


def test_id_of_a_client_of_another_protocol_is_refused() -> None:
    """Client ids are visible in presence, so anybody can try."""
    harness = NodeHarness()
    victim = harness.connect("ann", "news")
    thief = ParcelClient(harness, start_parcel(harness), victim.id)
    thief.send_connect(give_token(harness, "bob"))
    assert thief.disconnect_code == 3507
    harness.publish("news", 1)
    assert len(victim.receive()) == 1


def test_id_of_a_session_that_is_connecting_is_refused() -> None:
    """With a code after which the client tries again. The id is free when its session has ended."""

    async def scenario() -> None:
        harness = NodeHarness()
        endpoint, token = start_parcel(harness), give_token(harness, "ann")
        harness.calls.hold("verify")
        first, second = ParcelClient(harness, endpoint, "id"), ParcelClient(harness, endpoint, "id")
        first.send_connect(token)
        second.send_connect(token)
        await settle()
        assert (first.disconnect_code, second.disconnect_code) == (0, 3011)
        first.drop_connection()
        third = ParcelClient(harness, endpoint, "id")
        third.send_connect(token)
        harness.calls.release("verify")
        await settle()
        third.receive()
        assert harness.node.registry.by_client("id") is third.session
        assert len(harness.node.registry) == 1

    asyncio.run(scenario())


def test_id_of_a_session_that_makes_its_subscriptions_is_refused() -> None:
    """The session is known already, but its client must get the reply to its connect first."""

    async def scenario() -> None:
        harness = NodeHarness()
        endpoint = start_parcel(harness)
        token = give_token(harness, "ann", channels={"news": SubscriptionGrant()})
        harness.calls.hold("attach")
        first, second = ParcelClient(harness, endpoint, "id"), ParcelClient(harness, endpoint, "id")
        first.send_connect(token)
        await settle()
        second.send_connect(token)
        harness.calls.release("attach")
        await settle()
        assert (first.disconnect_code, second.disconnect_code) == (0, 3011)
        [connected] = first.receive()
        assert isinstance(connected, Connected)

    asyncio.run(scenario())


@pytest.mark.parametrize("acked", [0, 1000])
def test_client_that_needs_messages_that_are_forgotten_is_refused(acked: int) -> None:
    """With 3501 on the new transport. The session stays on the old one."""
    harness = NodeHarness()
    client = connect(harness, "news")
    old = client.transport
    client.move(acked)
    assert client.disconnect_code == 3501
    client.transport, client._read_bytes = old, len(b"".join(old.writes))
    harness.publish("news", 1)
    assert client.publications() == [1]


# --- what the server knows of the transport


def test_session_is_found_by_the_secret_of_its_present_transport() -> None:
    """Transports without a connection of their own for commands have such a secret. None is left after the end."""
    harness = NodeHarness()
    registry = harness.node.registry
    client = ParcelClient(harness, start_parcel(harness), "id")
    client.transport.secret = "first"
    client.connect("")
    session = client.session
    assert registry.by_session("first") is session
    client.drop_connection()
    assert registry.by_session("first") is None
    client.move(secret="second")
    assert registry.by_session("second") is session
    client.move(secret="third")
    assert (registry.by_session("second"), registry.by_session("third")) == (None, session)
    session.end(CONNECTION_CLOSED)
    assert registry._by_secret == {}


def test_frames_of_a_living_transport_are_written_before_the_move() -> None:
    """A protocol without acknowledgements loses only what the old transport does not take."""
    harness = NodeHarness()
    client = connect(harness, "news")
    written = len(client.transport.writes)
    harness.publish("news", 1)
    harness.scheduled.pop(0)()  # the hub hands the frame to the outbox
    old = client.move()
    assert len(old.writes) == written + 1
