"""Engines of several nodes with one store: delivery, and lost links."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.timers import Timers
from beaconfire.engines.port import EngineState, EngineStatistics, HistoryOptions, PublishOptions
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.testing import SharedEngine, SharedStore
from tests.fakes.engine import NoCallbacks

HISTORY = HistoryOptions(size=100, ttl_s=60.0)
KEPT = PublishOptions(history=HISTORY)


class Node(NoCallbacks):
    """Records what arrives."""

    def __init__(self, engine: SharedEngine) -> None:
        self.engine = engine
        self.link = engine.link
        self.arrived: list[str] = []

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        previous: int,
        exclude: Sequence[str],
        delta: bool = False,
    ) -> None:
        self.arrived.append(f"{channel}{publication.offset}")

    def on_join(self, channel: str, info: ClientInfo) -> None:
        self.arrived.append(f"{channel} join")

    def on_link_down(self, channels: Sequence[str] | None) -> None:
        self.arrived.append(f"down {channels}")

    def on_link_up(self, channels: Sequence[str] | None) -> None:
        self.arrived.append(f"up {channels}")

    def on_control(self, message: bytes) -> None:
        self.arrived.append(message.decode())

    async def publish(self, channel: str, count: int = 1) -> None:
        for _ in range(count):
            await self.engine.broker.publish(channel, Raw(b"{}"), KEPT)


class Setup:
    """Two started nodes, `one` and `two`. Nothing arrives before `store.deliver_one` or `deliver_all`."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.store = SharedStore(self.timers, random.Random(3).random)
        self.one = Node(self.store.connect())
        self.two = Node(self.store.connect())

    async def start(self) -> None:
        for uid, node in (("one", self.one), ("two", self.two)):
            await node.engine.broker.start(node)
            await node.engine.control.start(uid, node)


def run(scenario: Callable[[Setup], Coroutine[Any, Any, None]]) -> None:
    async def play() -> None:
        setup = Setup()
        await setup.start()
        await scenario(setup)

    asyncio.run(play())


def test_announcements_wait_until_they_are_delivered() -> None:
    """In order within a channel of a node, in random order otherwise. Nodes without the channel get nothing."""

    async def scenario(s: Setup) -> None:
        await s.one.engine.broker.attach(["a", "b"])
        await s.two.engine.broker.attach(["a"])
        for _ in range(10):
            await s.one.publish("a")
            await s.two.publish("b")
        assert (s.one.arrived, s.two.arrived, s.store.on_their_way) == ([], [], 30)
        s.store.deliver_one()
        assert len(s.one.arrived) + len(s.two.arrived) == 1
        s.store.deliver_all()
        s.store.deliver_one()
        for channel in "ab":
            arrived = [entry for entry in s.one.arrived if entry.startswith(channel)]
            assert arrived == [f"{channel}{offset}" for offset in range(1, 11)]
        assert s.two.arrived == [f"a{offset}" for offset in range(1, 11)]
        assert s.one.arrived != [f"{channel}{offset}" for offset in range(1, 11) for channel in "ab"]

    run(scenario)


def test_a_lost_link_voids_attachments_and_drops_what_is_on_its_way() -> None:
    """Calls fail until the link is restored. Then the node attaches again and hears what is published afterwards."""

    async def scenario(s: Setup) -> None:
        broker = s.two.engine.broker
        await broker.attach(["a"])
        await s.one.publish("a", 2)
        s.two.link.lose()
        assert s.two.engine.state() == EngineState(False, "the link to the shared store is lost")
        with pytest.raises(EngineUnavailable):
            await broker.attach(["a"])
        with pytest.raises(EngineUnavailable):
            await s.two.engine.presence.members("a")
        await s.one.publish("a")
        s.two.link.restore()
        assert s.two.engine.state() == EngineState(True)
        await s.one.publish("a")
        s.store.deliver_all()
        assert s.two.arrived == ["down None", "up None"]
        await broker.attach(["a"])
        await s.one.publish("a")
        s.store.deliver_all()
        assert s.two.arrived[2:] == ["a5"]

    run(scenario)


def test_the_link_of_one_channel_can_be_lost() -> None:
    """Other channels, and other calls of this channel, go on. The channel cannot be attached before it is restored."""

    async def scenario(s: Setup) -> None:
        broker = s.one.engine.broker
        await broker.attach(["a", "b"])
        await s.two.publish("a")
        await s.two.publish("b")
        s.one.link.lose(["a"])
        with pytest.raises(EngineUnavailable):
            await broker.attach(["c", "a"])
        await s.one.publish("a")
        await s.one.publish("b")
        s.store.deliver_all()
        s.one.link.restore(["a"])
        await broker.attach(["a"])
        await s.two.publish("a")
        s.store.deliver_all()
        assert s.one.arrived == ["down ['a']", "b1", "b2", "up ['a']", "a3"]
        assert s.one.engine.state().up is True

    run(scenario)


@pytest.mark.parametrize("noticed", [False, True])
def test_a_silently_lost_link_makes_calls_hang(noticed: bool) -> None:
    """Nobody is told before the link is restored, or its loss is noticed. Then the calls fail."""

    async def scenario(s: Setup) -> None:
        await s.one.engine.broker.attach(["a"])
        await s.two.publish("a")
        s.one.link.lose_silently()
        call = asyncio.ensure_future(s.one.engine.broker.ping())
        for _ in range(10):
            await asyncio.sleep(0)
        s.store.deliver_all()
        assert (call.done(), s.one.engine.state().up, s.one.arrived) == (False, True, [])
        if noticed:
            s.one.link.lose()
            assert s.one.engine.state().up is False
        s.one.link.restore()
        with pytest.raises(EngineUnavailable):
            await call
        await s.one.engine.broker.ping()
        assert s.one.arrived == ["down None", "up None"]

    run(scenario)


def test_control_messages_reach_live_nodes() -> None:
    """In order from each sender. A node whose link is lost is not live, and is live again with the link."""

    async def scenario(s: Setup) -> None:
        control = s.one.engine.control
        assert sorted(await control.nodes()) == ["one", "two"]
        await control.broadcast(b"all")
        assert await control.send("two", b"only two") is True
        s.store.deliver_all()
        assert (s.one.arrived, s.two.arrived) == (["all"], ["all", "only two"])
        await control.broadcast(b"dropped")
        s.two.link.lose()
        assert list(await control.nodes()) == ["one"]
        assert await control.send("two", b"lost") is False
        s.two.link.restore()
        assert await control.send("two", b"back") is True
        s.store.deliver_all()
        assert s.two.arrived[2:] == ["down None", "up None", "back"]

    run(scenario)


def test_a_survey_ends_with_the_last_answer_or_with_its_time() -> None:
    """The answer of this node is there in any case."""

    async def scenario(s: Setup) -> None:
        control = s.one.engine.control
        survey = asyncio.ensure_future(control.survey(b"?", 5.0))
        await asyncio.sleep(0)
        s.store.deliver_all()
        assert await survey == [b"", b""]
        late = asyncio.ensure_future(control.survey(b"?", 5.0))
        await asyncio.sleep(0)
        s.clock.advance(5.0)
        s.timers.run_due()
        assert await late == [b""]
        s.store.deliver_all()
        await s.two.engine.control.stop()
        assert await control.survey(b"?", 5.0) == [b""]
        assert len(s.timers) == 0

    run(scenario)


def test_a_stopped_node_gets_nothing() -> None:
    """What is on its way is dropped. The node can start again, with another uid than a live node."""

    async def scenario(s: Setup) -> None:
        await s.two.engine.broker.attach(["a"])
        await s.one.publish("a")
        await s.one.engine.control.broadcast(b"x")
        await s.two.engine.control.stop()
        await s.two.engine.broker.stop()
        s.store.deliver_all()
        assert s.two.arrived == []
        with pytest.raises(RuntimeError, match="uid 'one'"):
            await s.two.engine.control.start("one", s.two)
        with pytest.raises(RuntimeError):
            await s.two.engine.control.survey(b"?", 1.0)
        with pytest.raises(RuntimeError):
            await s.two.engine.broker.attach(["a"])
        await s.two.engine.broker.start(s.two)
        await s.two.engine.broker.attach(["a"])
        await s.one.publish("a")
        s.store.deliver_all()
        assert s.two.arrived == ["a2"]

    run(scenario)


def test_a_lost_history_starts_a_new_epoch() -> None:
    """Attachments stay."""

    async def scenario(s: Setup) -> None:
        broker = s.one.engine.broker
        await broker.attach(["a"])
        await s.one.publish("a", 2)
        before = (await broker.history("a", HISTORY, -1)).position
        s.store.lose_history("a")
        s.store.lose_history("unknown")
        after = await broker.history("a", HISTORY, -1, before)
        assert (after.publications, after.position.offset, after.continues) == ([], 0, False)
        await s.one.publish("a")
        s.store.deliver_all()
        assert s.one.arrived == ["a1", "a2", "a1"]
        assert s.one.engine.statistics() == EngineStatistics()
        assert s.one.engine.sweep() is False

    run(scenario)


def test_deliveries_can_be_scheduled() -> None:
    """Then everything arrives by itself, one action in each turn of the event loop."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        store = SharedStore(Timers(ManualClock()), random.Random(3).random, loop.call_soon)
        node = Node(store.connect())
        await node.engine.broker.start(node)
        await node.engine.broker.attach(["a", "b"])
        await node.publish("a", 3)
        await node.publish("b", 3)
        assert node.arrived == []
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert store.on_their_way == 0
        assert sorted(node.arrived) == ["a1", "a2", "a3", "b1", "b2", "b3"]

    asyncio.run(scenario())
