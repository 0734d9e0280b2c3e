"""A graceful shutdown over a window, with a deadline."""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Coroutine
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

    def __init__(self, clients: int, **options: float) -> None:
        self.node_harness = NodeHarness(ping_interval=Seconds(0))
        self.clients = [self.node_harness.connect(f"user{number}") for number in range(clients)]
        self.log: list[str] = []
        self.started_s = self.node_harness.clock.now_s()
        server_options = ServerOptions(**{name: Seconds(value) for name, value in options.items()})  # type: ignore[arg-type]
        self.drain = Drain(
            self.node_harness.node.registry,
            server_options,
            self.node_harness.clock,
            self.node_harness.recorder,
            lambda: self.log.append(f"unready {self.elapsed_s():g}"),
            lambda: self.log.append(f"stopped {self.elapsed_s():g}"),
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


def close_when_disconnected(harness: DrainHarness) -> None:
    """Makes the clients close their side as soon as they are disconnected."""
    for client in harness.clients:
        client.transport.when_closed = client.drop_connection


def test_phases_of_a_drain_are_in_order() -> None:
    """Readiness turns red first.

    Then, after the delay for the load balancer, listening stops, and the sessions are closed.
    """
    harness = DrainHarness(3, drain_delay=4, drain_window=1)
    close_when_disconnected(harness)
    harness.run()
    assert harness.log == ["unready 0", "stopped 4"]
    assert harness.phases() == ["unready", "stopped_listening", "closing", "closed", "finished"]
    assert [client.disconnect_code for client in harness.clients] == [3001, 3001, 3001]


def test_sessions_are_closed_in_equal_batches_over_the_window() -> None:
    """So the clients of a rolling deploy do not reconnect all at once: a hundred over a second are ten or a few more
    every tenth."""
    harness = DrainHarness(100, drain_window=1)
    close_when_disconnected(harness)
    harness.run()
    left = [100, *harness.remaining()]
    batches = [before - after for before, after in itertools.pairwise(left)]
    assert sum(batches) == 100
    assert batches[0] == 10
    assert max(batches) <= 12
    assert 0.8 <= harness.elapsed_s() <= 1.0


def test_few_sessions_are_closed_one_by_one() -> None:
    """A batch is never empty, and the drain does not wait for the rest of the window."""
    harness = DrainHarness(3, drain_window=5)
    close_when_disconnected(harness)
    harness.run()
    assert harness.remaining() == [2, 1, 0]
    assert harness.elapsed_s() <= 0.3


def test_without_a_window_all_sessions_are_closed_at_once() -> None:
    """Without sessions the drain does not wait at all."""
    harness = DrainHarness(50, drain_window=0)
    close_when_disconnected(harness)
    harness.run()
    assert harness.remaining() == [0]
    assert harness.elapsed_s() == 0
    empty = DrainHarness(0, drain_window=5)
    empty.run()
    assert (empty.remaining(), empty.elapsed_s()) == ([], 0)


def test_batches_get_smaller_if_clients_disconnect_themselves() -> None:
    """The remaining sessions are spread over the remaining window."""
    harness = DrainHarness(20, drain_window=1)
    close_when_disconnected(harness)

    async def leave() -> None:
        await asyncio.sleep(0)
        left = [client for client in harness.clients if not client.disconnect_code]
        assert len(left) == 18
        for client in left[:10]:
            client.drop_connection()

    harness.run(leave())
    assert harness.remaining() == [18, 7, 6, 5, 4, 3, 2, 1, 0]
    assert sum(client.disconnect_code == 3001 for client in harness.clients) == 10


def test_drain_waits_for_closing_transports_until_the_deadline() -> None:
    """A transport may still send the rest."""
    harness = DrainHarness(2, drain_window=0, shutdown_timeout=10)
    harness.run()
    assert [client.disconnect_code for client in harness.clients] == [3001, 3001]
    assert 10 <= harness.elapsed_s() <= 10.1
    assert harness.phases()[-1] == "finished"


def test_drain_ends_when_every_transport_is_closed() -> None:
    """It does not wait for the deadline then."""
    harness = DrainHarness(2, drain_window=0, shutdown_timeout=10)

    async def close() -> None:
        await asyncio.sleep(0)
        for client in harness.clients:
            client.drop_connection()

    harness.run(close())
    assert harness.elapsed_s() <= 0.1


def test_shutdown_timeout_covers_all_phases() -> None:
    """Neither the delay nor the window exceeds it."""
    delayed = DrainHarness(5, drain_delay=100, drain_window=100, shutdown_timeout=3)
    delayed.run()
    assert delayed.log == ["unready 0", "stopped 3"]
    assert delayed.elapsed_s() <= 3.2
    assert all(client.disconnect_code == 3001 for client in delayed.clients)
    windowed = DrainHarness(1000, drain_window=100, shutdown_timeout=3)
    close_when_disconnected(windowed)
    windowed.run()
    assert windowed.elapsed_s() <= 3.2
    assert all(client.disconnect_code == 3001 for client in windowed.clients)


def test_hurry_skips_the_remaining_waits() -> None:
    """During the delay, the window or the wait for transports."""
    harness = DrainHarness(100, drain_delay=60, drain_window=60, shutdown_timeout=300)

    async def hurry() -> None:
        asyncio.get_running_loop().call_later(5, harness.drain.hurry)

    harness.run(hurry())
    assert harness.log == ["unready 0", "stopped 5"]
    assert harness.remaining() == [0]
    assert harness.elapsed_s() == 5
    assert all(client.disconnect_code == 3001 for client in harness.clients)


def test_session_opened_during_the_drain_is_closed_as_well() -> None:
    """Its handshake was admitted before the drain began."""
    harness = DrainHarness(10, drain_window=1)
    close_when_disconnected(harness)
    late: list[HarnessClient] = []

    async def open_session() -> None:
        await asyncio.sleep(0)
        late.append(harness.node_harness.open_session())

    harness.run(open_session())
    assert late[0].disconnect_code == 3001


def test_transports_without_a_session_are_closed() -> None:
    """With 3001. The drain does not wait for them."""
    harness = DrainHarness(0)
    node, transport = harness.node_harness.node, RecordingTransport()
    operations = node.operations
    sessions = node.sessions(
        SessionTraits(), lambda session: CentrifugeConnection(session, operations, JsonCodec()), lambda: "id"
    )
    sessions.receive_first(transport, HANDSHAKE, lambda new, data, binary: None)
    harness.run()
    assert transport.closed == (3001, "shutdown")
    assert harness.elapsed_s() == 0
