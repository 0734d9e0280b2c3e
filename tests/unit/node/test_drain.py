"""A graceful shutdown at a rate, with a deadline, and that of a worker that has been replaced."""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from beaconfire.base.clock import ManualClock
from beaconfire.base.units import Seconds
from beaconfire.model.events import DrainAdvanced
from beaconfire.node.drain import Drain
from beaconfire.protocols.centrifuge.connection import CentrifugeConnection
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.transports.options import ServerOptions
from beaconfire.transports.traits import SessionTraits
from tests.fakes.transport import HANDSHAKE, RecordingTransport
from tests.unit.kit import HarnessClient, NodeHarness


class _JumpingSelector(selectors.SelectSelector):
    """Advances the clock where an event loop would sleep."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "every task waits, and no timer is set"
        self._clock.advance(timeout)
        return super().select(0)


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: ManualClock) -> None:
        super().__init__(_JumpingSelector(clock))
        self._manual_clock = clock

    def time(self) -> float:
        return self._manual_clock.now_s()


class DrainHarness:
    """A node with clients and its drain. The event loop and the node share a manual clock."""

    def __init__(self, clients: int, *, replaced: bool = False, drain_rate: int = 500, **options: float) -> None:
        self.node_harness = NodeHarness(ping_interval=Seconds(0))
        self.clients = [self.node_harness.connect(f"user{number}") for number in range(clients)]
        self.log: list[str] = []
        self.started_s = self.node_harness.clock.now_s()
        durations: dict[str, Any] = {name: Seconds(value) for name, value in options.items()}
        self.drain = Drain(
            self.node_harness.node.registry,
            ServerOptions(drain_rate=drain_rate, **durations),
            self.node_harness.clock,
            self.node_harness.recorder,
            lambda: self.log.append(f"unready {self.elapsed_s():g}"),
            lambda: self.log.append(f"stopped {self.elapsed_s():g}"),
            replaced=replaced,
        )

    def elapsed_s(self) -> float:
        return round(self.node_harness.clock.now_s() - self.started_s, 3)

    def run(self, *others: Coroutine[Any, Any, None]) -> None:
        async def together() -> None:
            await asyncio.gather(self.drain.run(), *others)

        with asyncio.Runner(loop_factory=lambda: _JumpingLoop(self.node_harness.clock)) as runner:
            runner.run(together())

    def phases(self) -> list[str]:
        seen: list[str] = []
        for event in self.node_harness.recorder.of(DrainAdvanced):
            if event.phase not in seen:
                seen.append(event.phase)
        return seen

    def remaining(self) -> list[int]:
        """How many sessions are left after each batch."""
        return [event.remaining for event in self.node_harness.recorder.of(DrainAdvanced) if event.phase == "closing"]


async def call_at(after_s: float, callback: Callable[[], None]) -> None:
    """Makes the event loop call `callback` during the drain."""
    asyncio.get_running_loop().call_later(after_s, callback)


def close_when_disconnected(harness: DrainHarness) -> None:
    """Makes the clients close their side as soon as they are disconnected."""
    for client in harness.clients:
        client.transport.when_closed = client.drop_connection


def test_phases_of_a_drain_are_in_order() -> None:
    """Readiness turns red first.

    Then, after the delay for the load balancer, listening stops, and the sessions are closed.
    """
    harness = DrainHarness(3, drain_delay=4)
    close_when_disconnected(harness)
    harness.run()
    assert harness.log == ["unready 0", "stopped 4"]
    assert harness.phases() == ["unready", "stopped_listening", "closing", "closed", "finished"]
    assert [client.disconnect_code for client in harness.clients] == [3001, 3001, 3001]


def test_sessions_are_closed_at_the_drain_rate() -> None:
    """So the clients of a rolling deploy do not reconnect all at once: 100 sessions per second are 10 every tenth."""
    harness = DrainHarness(100, drain_rate=100)
    close_when_disconnected(harness)
    harness.run()
    assert harness.remaining() == [90, 80, 70, 60, 50, 40, 30, 20, 10, 0]
    assert 0.8 <= harness.elapsed_s() <= 1.0


def test_few_sessions_are_closed_at_once() -> None:
    """The rate of the default permits 50 in the first batch, and the drain waits for nothing then."""
    harness = DrainHarness(50)
    close_when_disconnected(harness)
    harness.run()
    assert harness.remaining() == [0]
    assert harness.elapsed_s() == 0


def test_rate_below_one_session_per_batch_is_kept() -> None:
    """Parts of a session add up: 4 sessions per second are one every quarter of a second."""
    harness = DrainHarness(5, drain_rate=4)
    close_when_disconnected(harness)
    harness.run()
    assert harness.remaining() == [4, 4, 4, 3, 3, 2, 2, 2, 1, 1, 0]
    assert harness.elapsed_s() == 1


def test_without_a_rate_all_sessions_are_closed_at_once() -> None:
    """Without sessions the drain does not wait at all."""
    harness = DrainHarness(5000, drain_rate=0)
    close_when_disconnected(harness)
    harness.run()
    assert harness.remaining() == [0]
    assert harness.elapsed_s() == 0
    empty = DrainHarness(0, drain_rate=1)
    empty.run()
    assert (empty.remaining(), empty.elapsed_s()) == ([], 0)


def test_drain_is_shorter_if_clients_disconnect_themselves() -> None:
    """The rate stays the same."""
    harness = DrainHarness(20, drain_rate=20)
    close_when_disconnected(harness)

    async def leave() -> None:
        await asyncio.sleep(0)
        left = [client for client in harness.clients if not client.disconnect_code]
        assert len(left) == 18
        for client in left[:10]:
            client.drop_connection()

    harness.run(leave())
    assert harness.remaining() == [18, 6, 4, 2, 0]
    assert sum(client.disconnect_code == 3001 for client in harness.clients) == 10


def test_drain_waits_for_closing_transports_until_the_deadline() -> None:
    """A transport may still send the rest."""
    harness = DrainHarness(2, shutdown_timeout=10)
    harness.run()
    assert [client.disconnect_code for client in harness.clients] == [3001, 3001]
    assert 10 <= harness.elapsed_s() <= 10.1
    assert harness.phases()[-1] == "finished"


def test_drain_ends_when_every_transport_is_closed() -> None:
    """It does not wait for the deadline then."""
    harness = DrainHarness(2, shutdown_timeout=10)

    async def close() -> None:
        await asyncio.sleep(0)
        for client in harness.clients:
            client.drop_connection()

    harness.run(close())
    assert harness.elapsed_s() <= 0.1


def test_shutdown_timeout_covers_all_phases() -> None:
    """The delay does not exceed it. With a rate that is too low, the batches are larger, and equal."""
    delayed = DrainHarness(5, drain_delay=100, drain_rate=1, shutdown_timeout=3)
    delayed.run()
    assert delayed.log == ["unready 0", "stopped 3"]
    assert delayed.elapsed_s() <= 3.2
    assert all(client.disconnect_code == 3001 for client in delayed.clients)
    slow = DrainHarness(1000, drain_rate=1, shutdown_timeout=3)
    close_when_disconnected(slow)
    slow.run()
    assert slow.elapsed_s() <= 3.2
    assert all(client.disconnect_code == 3001 for client in slow.clients)
    batches = [before - after for before, after in itertools.pairwise([1000, *slow.remaining()])]
    assert sum(batches) == 1000
    assert max(batches) <= 40


def test_hurry_skips_the_remaining_waits() -> None:
    """During the delay, between the batches or during the wait for transports."""
    harness = DrainHarness(100, drain_delay=60, drain_rate=1, shutdown_timeout=300)

    harness.run(call_at(5, harness.drain.hurry))
    assert harness.log == ["unready 0", "stopped 5"]
    assert harness.remaining() == [0]
    assert harness.elapsed_s() == 5
    assert all(client.disconnect_code == 3001 for client in harness.clients)


def test_session_opened_during_the_drain_is_closed_as_well() -> None:
    """Its handshake was admitted before the drain began."""
    harness = DrainHarness(10, drain_rate=10)
    close_when_disconnected(harness)
    late: list[HarnessClient] = []

    async def open_session() -> None:
        await asyncio.sleep(0)
        late.append(harness.node_harness.open_session())

    harness.run(open_session())
    assert late[0].disconnect_code == 3001


def make_unassigned(harness: DrainHarness) -> RecordingTransport:
    """A transport whose client has sent nothing yet, so that it has no session."""
    node, transport = harness.node_harness.node, RecordingTransport()
    operations = node.operations
    sessions = node.sessions(
        SessionTraits(), lambda session: CentrifugeConnection(session, operations, JsonCodec()), lambda: "id"
    )
    sessions.receive_first(transport, HANDSHAKE, lambda new, data, binary: None)
    return transport


def test_transports_without_a_session_are_closed() -> None:
    """With 3001. The drain does not wait for them."""
    harness = DrainHarness(0)
    transport = make_unassigned(harness)
    harness.run()
    assert transport.closed == (3001, "shutdown")
    assert harness.elapsed_s() == 0


def test_replaced_worker_stops_listening_first_and_admits_until_the_end() -> None:
    """There is no delay for a load balancer, because the new worker listens on the same socket."""
    harness = DrainHarness(300, replaced=True, drain_delay=60, drain_rate=100)
    close_when_disconnected(harness)
    harness.run()
    assert harness.log == ["stopped 0", "unready 2.9"]
    assert harness.phases() == ["stopped_listening", "closing", "unready", "closed", "finished"]
    assert len(harness.remaining()) == 30
    assert all(client.disconnect_code == 3001 for client in harness.clients)


def test_replaced_worker_hands_over_connections_that_it_had_accepted() -> None:
    """Their requests may come after the last session has ended. So the worker waits for them for a second."""
    harness = DrainHarness(1, replaced=True)
    close_when_disconnected(harness)
    late: list[HarnessClient] = []

    def connect_late() -> None:
        assert harness.log == ["stopped 0"], "admission is open"
        late.append(harness.node_harness.connect("late"))
        late[0].transport.when_closed = late[0].drop_connection

    harness.run(call_at(0.85, connect_late))
    assert late[0].disconnect_code == 3001
    assert harness.log == ["stopped 0", "unready 1"]


def test_replaced_worker_closes_transports_without_a_session_last() -> None:
    """Their clients may still send their first message while the others are handed over."""
    harness = DrainHarness(0, replaced=True)
    transport = make_unassigned(harness)
    closed: list[object] = []

    harness.run(call_at(0.95, lambda: closed.append(transport.closed)))
    assert closed == [None]
    assert transport.closed == (3001, "shutdown")


def test_hurry_ends_the_drain_of_a_replaced_worker() -> None:
    """Neither the rate nor the second for late requests is kept."""
    harness = DrainHarness(100, replaced=True, drain_rate=10)
    close_when_disconnected(harness)

    harness.run(call_at(0.5, harness.drain.hurry))
    assert harness.elapsed_s() == 0.5
    assert harness.remaining()[-1] == 0


def test_shutdown_timeout_bounds_the_drain_of_a_replaced_worker() -> None:
    """The second for late requests as well."""
    harness = DrainHarness(1, replaced=True, shutdown_timeout=0.5)
    harness.run()
    assert harness.log == ["stopped 0", "unready 0.5"]
    assert harness.elapsed_s() == 0.5
