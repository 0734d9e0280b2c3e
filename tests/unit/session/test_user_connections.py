"""`client.user_connection_limit` over two nodes that share a presence store."""

from __future__ import annotations

import asyncio

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.timers import Timers
from beaconfire.base.units import Seconds
from beaconfire.engines.guard import guard_engine
from beaconfire.engines.memory import memory_engine
from beaconfire.model.identity import Identity
from beaconfire.model.publication import ClientInfo
from beaconfire.session.options import ClientOptions
from beaconfire.testing.shared import SharedStore
from tests.fakes.events import EventRecorder
from tests.unit.kit import HarnessClient, NodeHarness, run, settle

CHANNEL = "connections/ann"
INTERVAL_S = float(ClientOptions().presence_update_interval)


def two_nodes(limit: int) -> tuple[NodeHarness, NodeHarness]:
    one = NodeHarness(user_connection_limit=limit, ping_interval=Seconds(0))
    return one, NodeHarness(user_connection_limit=limit, ping_interval=Seconds(0), peer=one)


def try_connect(node: NodeHarness, user: str = "ann") -> int:
    """0, or the code of the refusal."""
    node.tokens.connections.known[user] = Identity(user=user)
    return node.open_session().request_code("connect", token=user)


def start_connect(node: NodeHarness) -> HarnessClient:
    node.tokens.connections.known["ann"] = Identity(user="ann")
    client = node.open_session()
    client.send("connect", token="ann")
    return client


def counted(node: NodeHarness) -> set[str]:
    """The connections of ann that the store counts. `node` is the one that owns the store."""
    return node.present_clients(node.namespaces.internal(CHANNEL))


def test_connections_of_a_user_count_over_all_nodes() -> None:
    """The refused client gets 3504 and leaves no entry. Other users and anonymous clients do not count."""
    one, two = two_nodes(2)
    first = one.connect("ann")
    assert try_connect(two) == 0
    assert [try_connect(one), try_connect(two)] == [3504, 3504]
    assert one.recorder.limits() == two.recorder.limits() == ["client.user_connection_limit"]
    assert len(counted(one)) == 2
    assert try_connect(two, "bob") == 0
    for _ in range(3):
        assert two.open_session().request_code("connect") == 0
    first.drop_connection()
    assert try_connect(two) == 0


def test_simultaneous_connects_on_two_nodes_never_exceed_the_limit() -> None:
    """Whoever counts last counts the other. A refused connect leaves no entry, so the place is free."""

    async def scenario() -> None:
        one, two = two_nodes(1)
        for node in (one, two):
            node.calls.hold("presence_add")
        clients = [start_connect(one), start_connect(two)]
        await settle()
        assert counted(one) == set()
        for node in (one, two):
            node.calls.release("presence_add")
        await settle()
        connected = [client for client in clients if not client.disconnect_code]
        assert len(connected) <= 1
        assert {client.disconnect_code for client in clients} <= {0, 3504}
        assert counted(one) == {client.id for client in connected}

    asyncio.run(scenario())


def test_connections_of_a_killed_node_stop_counting_when_their_entries_expire() -> None:
    """The bound is 2.2 refresh intervals. Connections of a living node are refreshed, and count on."""
    one, two = two_nodes(2)
    one.connect("ann")
    run(one.memory.presence.add(one.namespaces.internal(CHANNEL), [_ghost()], 2.2 * INTERVAL_S))
    assert try_connect(two) == 3504
    for node in (one, two):
        node.recorder.limits().clear()
    one.advance_time(2.2 * INTERVAL_S + 1)
    assert len(counted(one)) == 1
    assert try_connect(two) == 0
    assert try_connect(two) == 3504


def test_entries_that_the_engine_has_lost_are_added_again() -> None:
    """Within one refresh interval."""
    one, two = two_nodes(1)
    client = one.connect("ann")
    run(one.memory.presence.remove(one.namespaces.internal(CHANNEL), [client.id]))
    assert counted(one) == set()
    one.advance_time(INTERVAL_S + 1)
    assert counted(one) == {client.id}
    assert try_connect(two) == 3504


def test_connect_is_refused_with_error_100_while_the_engine_does_not_answer() -> None:
    """Never unlimited, whichever of the calls fails. The failed connect takes no place."""
    one, _ = two_nodes(1)
    one.recorder.expects_errors = True
    for call in ("presence_members", "presence_add"):
        one.calls.fail_next(call, EngineUnavailable("down"))
        assert try_connect(one) == 100
        assert (len(one.node.registry), counted(one)) == (0, set())
    assert try_connect(one) == 0


def test_failed_refresh_is_reported_and_the_entry_stays() -> None:
    """The next refresh follows before the entry expires."""
    one, _ = two_nodes(1)
    client = one.connect("ann")
    one.recorder.expects_errors = True
    one.calls.fail_next("presence_refresh", EngineUnavailable("down"))
    one.advance_time(3 * INTERVAL_S)
    assert counted(one) == {client.id}


def test_client_that_leaves_while_it_is_counted_leaves_no_entry() -> None:
    """Before its entry is added, and while it is."""

    async def leave_during(call: str) -> None:
        one, _ = two_nodes(1)
        one.calls.hold(call)
        client = start_connect(one)
        await settle()
        client.drop_connection()
        one.calls.release(call)
        await settle()
        assert counted(one) == set()
        assert len(one.node.registry) == 0

    for call in ("presence_members", "presence_add"):
        asyncio.run(leave_during(call))


def test_engine_of_one_node_is_not_asked() -> None:
    """The node itself knows all connections. The same holds without a limit."""
    harness = NodeHarness(user_connection_limit=1, single_node=True)
    harness.connect("ann")
    assert try_connect(harness) == 3504
    assert NodeHarness().node.work.user_connections is None
    assert harness.node.work.user_connections is None
    assert set(harness.calls.completed) == {"verify ann"}


def test_embedded_engines_are_engines_of_one_node() -> None:
    """Also behind the guard. An engine in another process is not."""
    clock = ManualClock()
    engine = memory_engine(clock)
    assert engine.single_node
    assert guard_engine(engine, 1.0, Timers(clock), EventRecorder()).single_node
    assert not guard_engine(
        SharedStore(Timers(clock), lambda: 0.5).connect(), 1.0, Timers(clock), EventRecorder()
    ).single_node


def _ghost() -> ClientInfo:
    return ClientInfo("ann", "on-a-killed-node")
