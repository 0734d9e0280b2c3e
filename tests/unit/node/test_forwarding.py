"""Commands that arrive at another node than the one with their session."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timers
from beaconfire.node import forwarding
from beaconfire.node.cluster import Cluster
from beaconfire.node.forwarding import ANSWER_TIMEOUT_S, Forwarding
from tests.fakes.events import EventRecorder
from tests.unit.node.test_cluster import FakeLocalControl, InProcessBus


class Nodes:
    """Two nodes `a` and `b` on one control bus. Both receive commands with `receive`."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.events = EventRecorder()
        self.errors: list[BaseException] = []
        self.bus = InProcessBus()
        self.received: list[tuple[str, str, bytes, bool]] = []
        self.a, self.b = self._node("a"), self._node("b")

    def _node(self, name: str) -> Forwarding:
        node = Forwarding(self.bus, name, self.timers, BackgroundTasks(self.errors.append), self.events)

        async def receive(session: str, data: bytes, binary: bool) -> bool:
            self.received.append((name, session, data, binary))
            return session == "known"

        node.receive = receive
        self.bus.handlers[name] = Cluster(self.bus, FakeLocalControl(name, {}), name, node)
        return node

    async def advance(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.clock.advance(seconds)
        self.timers.run_due()


def on_nodes(scenario: Callable[[Nodes], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario(Nodes())

    asyncio.run(main())


def test_the_node_with_the_session_receives_the_commands() -> None:
    """Nothing of the request is changed on the way."""

    async def scenario(nodes: Nodes) -> None:
        assert await nodes.a.forward("b", "known", b"\x00{}", True)
        assert nodes.received == [("b", "known", b"\x00{}", True)]
        assert nodes.errors == []

    on_nodes(scenario)


def test_requests_that_wait_together_get_their_own_answers() -> None:
    """The answers are matched by number."""

    async def scenario(nodes: Nodes) -> None:
        sessions = ["known", "ended", "known", "ended"]
        answers = await asyncio.gather(*(nodes.a.forward("b", session, b"", False) for session in sessions))
        assert answers == [True, False, True, False]

    on_nodes(scenario)


@pytest.mark.parametrize("node", ["gone", "b"])
def test_an_unknown_node_and_a_node_without_emulation_do_not_receive(node: str) -> None:
    """The client must connect again."""

    async def scenario(nodes: Nodes) -> None:
        nodes.b.receive = None
        assert not await nodes.a.forward(node, "known", b"", False)

    on_nodes(scenario)


def test_a_node_that_does_not_answer_in_time_is_an_error_and_a_late_answer_changes_nothing() -> None:
    """The late answer does not become that of the next request."""

    async def scenario(nodes: Nodes) -> None:
        release = asyncio.Event()

        async def receive(session: str, data: bytes, binary: bool) -> bool:
            await release.wait()
            return True

        nodes.b.receive = receive
        waiting = asyncio.ensure_future(nodes.a.forward("b", "known", b"", False))
        await nodes.advance(ANSWER_TIMEOUT_S - 0.1)
        assert not waiting.done()
        await nodes.advance(0.2)
        with pytest.raises(EngineUnavailable, match="has not answered within 3 s"):
            await waiting
        release.set()
        await asyncio.sleep(0)
        nodes.b.receive = None
        assert not await nodes.a.forward("b", "known", b"", False)

    on_nodes(scenario)


def test_more_requests_than_the_limit_are_refused_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request that waits already is answered."""
    monkeypatch.setattr(forwarding, "WAITING_MAX", 1)

    async def scenario(nodes: Nodes) -> None:
        first = asyncio.ensure_future(nodes.a.forward("b", "known", b"", False))
        await asyncio.sleep(0)
        with pytest.raises(EngineUnavailable, match="1 requests wait for other nodes already"):
            await nodes.a.forward("b", "known", b"", False)
        assert nodes.events.limits() == ["forwarded_commands_max"]
        assert await first

    on_nodes(scenario)


def test_a_request_that_is_cancelled_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client has disconnected: its place is free again."""
    monkeypatch.setattr(forwarding, "WAITING_MAX", 1)

    async def scenario(nodes: Nodes) -> None:
        waiting = asyncio.ensure_future(nodes.a.forward("b", "known", b"", False))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await nodes.a.forward("b", "known", b"", False)

    on_nodes(scenario)
