"""Leaving politely, over a window, before a deadline."""

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
from beaconfire.transports.options import ServerOptions
from tests.unit.kit import Client, World


class _JumpingSelector(selectors.SelectSelector):
    """Where a loop would sleep, the clock jumps."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for something that will never come"
        self._clock.advance(timeout)
        return super().select(0)


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: ManualClock) -> None:
        super().__init__(_JumpingSelector(clock))
        self._manual_clock = clock

    def time(self) -> float:
        return self._manual_clock.now_s()


class Stage:
    """A node with clients and its drain, on a loop whose time is the node's."""

    def __init__(self, clients: int, **options: float) -> None:
        self.world = World(ping_interval=Seconds(0))
        self.clients = [self.world.connect(f"user{number}") for number in range(clients)]
        self.log: list[str] = []
        self.started_s = self.world.clock.now_s()
        server_options = ServerOptions(**{name: Seconds(value) for name, value in options.items()})  # type: ignore[arg-type]
        self.drain = Drain(
            self.world.node.registry,
            server_options,
            self.world.clock,
            self.world.recorder,
            lambda: self.log.append(f"unready {self.elapsed_s():g}"),
            lambda: self.log.append(f"stopped {self.elapsed_s():g}"),
        )

    def elapsed_s(self) -> float:
        return round(self.world.clock.now_s() - self.started_s, 3)

    def run(self, *companions: Coroutine[Any, Any, None]) -> None:
        async def together() -> None:
            await asyncio.gather(self.drain.run(), *companions)

        with asyncio.Runner(loop_factory=lambda: _JumpingLoop(self.world.clock)) as runner:
            runner.run(together())

    def phases(self) -> list[str]:
        seen: list[str] = []
        for event in self.world.recorder.of(DrainAdvanced):
            if event.phase not in seen:
                seen.append(event.phase)
        return seen

    def remaining(self) -> list[int]:
        """How many sessions are left after each batch."""
        return [event.remaining for event in self.world.recorder.of(DrainAdvanced) if event.phase == "closing"]


def let_go(stage: Stage) -> None:
    """Clients that close their side as soon as they are told."""
    for client in stage.clients:
        client.transport.when_closed = client.cut


def test_the_phases_come_in_order() -> None:
    """Unready first, then the delay for the load balancer, then listening ends, then the sessions."""
    stage = Stage(3, drain_delay=4, drain_window=1)
    let_go(stage)
    stage.run()
    assert stage.log == ["unready 0", "stopped 4"]
    assert stage.phases() == ["unready", "stopped_listening", "closing", "closed", "finished"]
    assert [client.ended for client in stage.clients] == [3001, 3001, 3001]


def test_sessions_are_closed_in_equal_batches_over_the_window() -> None:
    """A rolling deploy is no stampede: a hundred over a second are ten or a few more every tenth."""
    stage = Stage(100, drain_window=1)
    let_go(stage)
    stage.run()
    left = [100, *stage.remaining()]
    batches = [before - after for before, after in itertools.pairwise(left)]
    assert sum(batches) == 100
    assert batches[0] == 10
    assert max(batches) <= 12
    assert 0.8 <= stage.elapsed_s() <= 1.0


def test_few_sessions_leave_one_by_one() -> None:
    """A batch is never empty, and nobody waits for a window that is over early."""
    stage = Stage(3, drain_window=5)
    let_go(stage)
    stage.run()
    assert stage.remaining() == [2, 1, 0]
    assert stage.elapsed_s() <= 0.3


def test_without_a_window_everyone_leaves_at_once() -> None:
    """And without sessions nothing is waited for at all."""
    stage = Stage(50, drain_window=0)
    let_go(stage)
    stage.run()
    assert stage.remaining() == [0]
    assert stage.elapsed_s() == 0
    empty = Stage(0, drain_window=5)
    empty.run()
    assert (empty.remaining(), empty.elapsed_s()) == ([], 0)


def test_who_leaves_by_itself_makes_room() -> None:
    """The batches that are left get smaller."""
    stage = Stage(20, drain_window=1)
    let_go(stage)

    async def leave() -> None:
        await asyncio.sleep(0)
        left = [client for client in stage.clients if not client.ended]
        assert len(left) == 18
        for client in left[:10]:
            client.cut()

    stage.run(leave())
    assert stage.remaining() == [18, 7, 6, 5, 4, 3, 2, 1, 0]
    assert sum(client.ended == 3001 for client in stage.clients) == 10


def test_a_client_that_does_not_close_is_waited_for_until_the_deadline() -> None:
    """It may be saying goodbye; then the hard limit ends the wait."""
    stage = Stage(2, drain_window=0, shutdown_timeout=10)
    stage.run()
    assert [client.ended for client in stage.clients] == [3001, 3001]
    assert 10 <= stage.elapsed_s() <= 10.1
    assert stage.phases()[-1] == "finished"


def test_the_last_goodbye_ends_the_wait() -> None:
    """As soon as every transport is gone, the drain is over."""
    stage = Stage(2, drain_window=0, shutdown_timeout=10)

    async def close() -> None:
        await asyncio.sleep(0)
        for client in stage.clients:
            client.cut()

    stage.run(close())
    assert stage.elapsed_s() <= 0.1


def test_the_deadline_is_for_everything_together() -> None:
    """Neither the delay nor the window may go beyond it."""
    delayed = Stage(5, drain_delay=100, drain_window=100, shutdown_timeout=3)
    delayed.run()
    assert delayed.log == ["unready 0", "stopped 3"]
    assert delayed.elapsed_s() <= 3.2
    assert all(client.ended == 3001 for client in delayed.clients)
    windowed = Stage(1000, drain_window=100, shutdown_timeout=3)
    let_go(windowed)
    windowed.run()
    assert windowed.elapsed_s() <= 3.2
    assert all(client.ended == 3001 for client in windowed.clients)


def test_a_second_signal_skips_what_is_left_to_wait() -> None:
    """During the delay, the window or the goodbyes."""
    stage = Stage(100, drain_delay=60, drain_window=60, shutdown_timeout=300)

    async def hurry() -> None:
        asyncio.get_running_loop().call_later(5, stage.drain.hurry)

    stage.run(hurry())
    assert stage.log == ["unready 0", "stopped 5"]
    assert stage.remaining() == [0]
    assert stage.elapsed_s() == 5
    assert all(client.ended == 3001 for client in stage.clients)


def test_who_arrives_meanwhile_leaves_too() -> None:
    """A handshake that was let in before the drain began ends like the others."""
    stage = Stage(10, drain_window=1)
    let_go(stage)
    late: list[Client] = []

    async def open_session() -> None:
        await asyncio.sleep(0)
        late.append(stage.world.open_session())

    stage.run(open_session())
    assert late[0].ended == 3001
