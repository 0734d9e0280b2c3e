"""Every node learns all revocations, before it accepts a token."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import LIMIT_EXCEEDED, CommandError, EngineUnavailable
from beaconfire.base.timers import Timers
from beaconfire.engines.memory import memory_engine
from beaconfire.engines.port import PublishOptions
from beaconfire.engines.sqlite import sqlite_engine
from beaconfire.model.events import InternalError, LimitHit
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.session.revocations import REVOCATIONS_MAX
from beaconfire.testing import SharedEngine, SharedStore
from tests.fakes.events import EventRecorder
from tests.unit.kit import settle
from tests.unit.node.revoking_node import CHANNEL, Node


class Cluster:
    """Nodes on one store."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.store = SharedStore(self.timers, random.Random(7).random)

    def node(self, limit: int = REVOCATIONS_MAX) -> Node:
        return Node(self.store.connect(), self.clock, self.timers, limit)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()


def play(scenario: Callable[[Cluster], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await scenario(Cluster())

    asyncio.run(main())


def link(node: Node) -> Any:
    assert isinstance(node.engine, SharedEngine)
    return node.engine.link


def test_a_revocation_is_known_on_every_node() -> None:
    """Each node enforces it once, although it may come by the call, by an announcement and from history."""

    async def scenario(cluster: Cluster) -> None:
        one, two = cluster.node(), cluster.node()
        await one.start()
        await two.start()
        await one.revoke("ann")
        await one.revoke("ann")
        cluster.store.deliver_all()
        assert [node.refuses("ann") for node in (one, two)] == [True, True]
        assert [node.refuses("bob") for node in (one, two)] == [False, False]
        assert [len(node.enforced) for node in (one, two)] == [1, 1]

    play(scenario)


def test_a_node_that_starts_accepts_no_token_before_it_knows_all_revocations() -> None:
    """They are read page by page."""

    async def scenario(cluster: Cluster) -> None:
        one = cluster.node()
        await one.start()
        for number in range(1500):
            await one.revoke(f"u{number}")
        two = cluster.node()
        await two.engine.broker.start(two)
        two.stream.start()
        assert not two.is_ready()
        assert two.refuses("bob")
        await settle()
        assert two.is_ready()
        assert len(two.revocations) == 1500
        assert not two.refuses("bob")

    play(scenario)


def test_none_of_a_thousand_revoked_tokens_is_accepted_on_another_node() -> None:
    """Revoked before the node started, while it was cut off, and while it was connected."""

    async def scenario(cluster: Cluster) -> None:
        one, two = cluster.node(), cluster.node()
        await one.start()
        for number in range(300):
            await one.revoke(f"u{number}")
        await two.start()
        link(two).lose()
        for number in range(300, 600):
            await one.revoke(f"u{number}")
        assert two.refuses("bob"), "nobody can tell whether the token is revoked"
        link(two).restore()
        await settle()
        for number in range(600, 1000):
            await one.revoke(f"u{number}")
        cluster.store.deliver_all()
        assert [number for number in range(1000) if not two.refuses(f"u{number}")] == []
        assert not two.refuses("bob")
        assert len(two.enforced) == 1000

    play(scenario)


def test_a_link_of_other_channels_is_no_concern() -> None:
    """An engine may have one link per server. The link of the internal channel counts, also if others are lost too."""

    async def scenario(cluster: Cluster) -> None:
        node = cluster.node()
        await node.start()
        node.on_link_down(["news"])
        assert not node.refuses("bob")
        node.on_link_down(["news", CHANNEL])
        node.on_link_up(["news"])
        await settle()
        assert node.refuses("bob")
        node.on_link_up([CHANNEL])
        await settle()
        assert not node.refuses("bob")

    play(scenario)


def test_learning_is_repeated_after_a_failure() -> None:
    """Until then no token is accepted. A link that comes back starts it at once, and a stopped node does nothing."""

    async def scenario(cluster: Cluster) -> None:
        node = cluster.node()
        await node.engine.broker.start(node)
        link(node).lose()
        node.stream.start()
        await settle()
        assert node.refuses("bob")
        cluster.advance(5)
        await settle()
        assert node.refuses("bob")
        link(node).restore()
        await settle()
        assert not node.refuses("bob")
        link(node).lose()
        node.stream.stop()
        link(node).restore()
        cluster.advance(5)
        await settle()
        assert node.refuses("bob")
        assert node.recorder.of(InternalError) == [], "an engine may fail"

    play(scenario)


def test_waiting_ends_when_revocations_are_known() -> None:
    """Or after the time limit."""

    async def scenario(cluster: Cluster) -> None:
        node = cluster.node()
        await node.engine.broker.start(node)
        link(node).lose()
        node.stream.start()
        await node.stream.wait_until_known(0.001)
        assert not node.is_ready()
        waiting = asyncio.create_task(node.stream.wait_until_known(60))
        await settle()
        link(node).restore()
        await waiting
        assert node.is_ready()
        await node.stream.wait_until_known(60)

    play(scenario)


def test_a_missed_announcement_is_noticed() -> None:
    """The next one names a predecessor that the node has not got. The node reads what it has missed."""

    async def scenario(cluster: Cluster) -> None:
        one, two = cluster.node(), cluster.node()
        await one.start()
        await two.start()
        attached = set(link(two).attached)
        link(two).attached.clear()
        await one.revoke("ann")
        link(two).attached.update(attached)
        await one.revoke("bob")
        assert not two.refuses("ann")
        cluster.store.deliver_all()
        assert two.refuses("eve"), "not all revocations are known"
        await settle()
        assert [two.refuses(user) for user in ("ann", "bob", "eve")] == [True, True, False]

    play(scenario)


def test_announcements_during_the_reading_are_taken() -> None:
    """In another channel, from before the position, and while the node learns."""

    async def scenario(cluster: Cluster) -> None:
        node = cluster.node()
        await node.start()
        await node.revoke("ann")
        cluster.store.deliver_all()
        data = Raw(b"\x82\xb0expire_at_unix_s\xcbA\xd9\x55\x55\x55\x55\x55\x55\xa4user\xa3bob")
        node.stream.on_publication("news", Publication(data, offset=1), "e", 0)
        assert len(node.revocations) == 1
        again = (await node.engine.broker.history(CHANNEL, node.stream._history, -1)).publications[0]
        epoch = (await node.engine.broker.positions({CHANNEL: node.stream._history}))[CHANNEL].epoch
        node.stream.on_publication(CHANNEL, again, epoch, 0)
        assert node.is_ready()
        node.on_link_down(None)
        node.on_link_up(None)
        node.on_link_down(None)
        await node.revoke("eve")
        cluster.store.deliver_all()
        assert len(node.revocations) == 2
        node.on_link_up(None)
        await settle()
        assert node.is_ready()

    play(scenario)


def test_a_lost_stream_is_read_from_its_start() -> None:
    """The node keeps what it knows."""

    async def scenario(cluster: Cluster) -> None:
        one, two = cluster.node(), cluster.node()
        await one.start()
        await two.start()
        await one.revoke("ann")
        cluster.store.deliver_all()
        link(two).lose()
        cluster.store.lose_history(CHANNEL)
        await one.revoke("bob")
        link(two).restore()
        await settle()
        assert [two.refuses(user) for user in ("ann", "bob", "eve")] == [True, True, False]

    play(scenario)


def test_what_cannot_be_decoded_is_reported_and_skipped() -> None:
    """A node of a later version may have written it."""

    async def scenario(cluster: Cluster) -> None:
        node = cluster.node()
        await node.engine.broker.start(node)
        await node.engine.broker.publish(CHANNEL, Raw(b"?"), PublishOptions(node.stream._history))
        await node.start()
        assert node.is_ready()
        assert [event.where for event in node.recorder.of(InternalError)] == ["revocations"]

    play(scenario)


def test_a_failed_publish_is_raised_and_may_be_repeated() -> None:
    """Nothing is void before."""

    async def scenario(cluster: Cluster) -> None:
        node = cluster.node()
        await node.start()
        link(node).lose()
        with pytest.raises(EngineUnavailable):
            await node.revoke("ann")
        assert len(node.revocations) == 0
        link(node).restore()
        await node.revoke("ann")
        assert len(node.revocations) == 1

    play(scenario)


def test_beyond_the_limit_a_call_is_refused() -> None:
    """Nothing is dropped. Revocations that have ended make room, at the latest after a minute."""

    async def scenario(cluster: Cluster) -> None:
        node = cluster.node(limit=2)
        await node.start()
        await node.revoke("ann", 10.0)
        await node.revoke("bob")
        with pytest.raises(CommandError, match="2 revocations are kept already") as caught:
            await node.revoke("eve")
        assert caught.value.code is LIMIT_EXCEEDED
        assert node.recorder.of(LimitHit) == [LimitHit("revocations_max", "")]
        assert [node.refuses(user) for user in ("ann", "bob", "eve")] == [True, True, False]
        await node.revoke("bob")
        cluster.clock.advance(10)
        await node.revoke("eve")
        assert len(node.revocations) == 2
        cluster.advance(60)
        assert len(node.revocations) == 0
        assert len(cluster.timers) == 0

    play(scenario)


def test_a_revocation_does_not_leave_the_stream_before_it_ends() -> None:
    """Although the same user is revoked again and again: the stream keeps three times the limit."""

    async def scenario(cluster: Cluster) -> None:
        one = cluster.node(limit=10)
        await one.start()
        for number in range(9):
            await one.revoke(f"u{number}", 1000.0)
        for _ in range(500):
            await one.revoke("ann")
            cluster.store.deliver_all()
        two = cluster.node(limit=10)
        await two.start()
        assert len(two.revocations) == 10
        assert all(two.refuses(f"u{number}") for number in range(9))
        page = await one.engine.broker.history(CHANNEL, one.stream._history, 0)
        assert isinstance(page.position, StreamPosition)
        assert page.position.offset < 3 * 510

    play(scenario)


def test_revocations_survive_a_restart_with_a_file(tmp_path: Path) -> None:
    """They have the best durability that the engine offers."""
    clock = ManualClock()

    def node() -> Node:
        live, events = memory_engine(clock), EventRecorder()
        engine = sqlite_engine(str(tmp_path / "history.db"), live, live.broker, clock, lambda: "epoch", events)
        return Node(engine, clock, Timers(clock))

    async def main() -> None:
        one = node()
        await one.engine.broker.start(one)
        one.stream.start()
        await one.stream.wait_until_known(30)
        await one.revoke("ann")
        await one.engine.broker.stop()
        two = node()
        await two.engine.broker.start(two)
        two.stream.start()
        await two.stream.wait_until_known(30)
        assert (two.refuses("ann"), two.refuses("bob")) == (True, False)
        await two.engine.broker.stop()

    asyncio.run(main())
