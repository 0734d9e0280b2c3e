"""The link to the engine is lost and comes back: the node is told, attaches again, and finds what it has missed."""

from __future__ import annotations

import asyncio

import pytest

from beaconfire.base.errors import EngineUnavailable
from beaconfire.engines.interceptor import EngineCall
from beaconfire.engines.port import PublishOptions
from beaconfire.model.events import EngineStateChanged
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo

from .harness import HISTORY, NODE, TIMEOUT_S, Harness, Run
from .test_failures import CALLS, settle

ANN = ClientInfo("ann", "c1")
OTHER = "node-2"


def test_the_node_is_told_that_the_link_is_down_and_up(run_link: Run) -> None:
    """Once each, in this order, for all channels. The state of the engine shows it, and each change is one event."""

    async def scenario(h: Harness) -> None:
        await h.lose_link()
        assert h.node.links == [("down", None)]
        assert h.engine.state().up is False
        assert h.engine.state().detail
        await h.advance(1.0)
        await h.restore_link()
        assert h.node.links == [("down", None), ("up", None)]
        await settle()
        await h.advance(1.0)
        await settle()
        assert h.engine.state().up is True
        assert [event.up for event in h.events.of(EngineStateChanged)] == [False, True]

    run_link(scenario)


def test_between_down_and_the_new_attach_nothing_is_announced(run_link: Run) -> None:
    """Also nothing that was on its way. After the attach, every later publication is announced, and names the offset
    before it, which shows the loss.
    """

    async def scenario(h: Harness) -> None:
        other = await h.join(OTHER)
        await h.engine.broker.attach(["a", "b"])
        await other.publish("a", b"1")
        await h.settle()
        await other.publish("b", b"2")
        await h.lose_link()
        await other.publish("a", b"3")
        await h.restore_link()
        await other.publish("a", b"4")
        await h.settle()
        assert [bytes(announced.publication.data) for announced in h.node.publications] in ([b"1"], [b"1", b"2"])
        before = len(h.node.received)
        await h.engine.broker.attach(["a"])
        await other.publish("a", b"5")
        await other.publish("b", b"6")
        await h.settle()
        (announced,) = h.node.publications[before:]
        assert (bytes(announced.publication.data), announced.previous) == (b"5", 3)

    run_link(scenario)


def test_after_the_link_is_up_the_positions_show_what_was_missed(run_link: Run) -> None:
    """A channel without a loss has the same position. History continues from the old position of the others."""

    async def scenario(h: Harness) -> None:
        other = await h.join(OTHER)
        channels = dict.fromkeys(("busy", "quiet", "unused"), HISTORY)
        for channel in ("busy", "quiet"):
            await h.publish(channel)
        before = await h.engine.broker.positions(channels)
        await h.lose_link()
        for _ in range(3):
            await other.publish("busy")
        await h.restore_link()
        await h.engine.broker.attach(list(channels))
        after = await h.engine.broker.positions(channels)
        assert after["quiet"] == before["quiet"]
        assert after["unused"] == before["unused"]
        assert after["busy"] == StreamPosition(4, before["busy"].epoch)
        page = await h.engine.broker.history("busy", HISTORY, -1, before["busy"])
        assert (len(page.publications), page.continues) == (3, True)

    run_link(scenario)


@pytest.mark.parametrize("name", CALLS)
def test_calls_fail_with_a_typed_error_while_the_link_is_down(run_link: Run, name: EngineCall) -> None:
    """At the latest at their deadline. After the link is up, the same call works."""

    async def scenario(h: Harness) -> None:
        call = CALLS[name]
        await h.lose_link()
        running = asyncio.ensure_future(call(h))
        await settle()
        await h.advance(TIMEOUT_S)
        with pytest.raises(EngineUnavailable):
            await running
        await h.restore_link()
        await call(h)

    run_link(scenario)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_link_that_is_lost_during_an_attach(run_link: Run, after: bool) -> None:
    """Whether the attach returns or raises: it is void, and a new attach after the link is up is complete."""

    async def scenario(h: Harness) -> None:
        other = await h.join(OTHER)
        release = h.calls.hold("attach", after=after)
        attaching = asyncio.ensure_future(h.engine.broker.attach(["a"]))
        await settle()
        await h.lose_link()
        release()
        await asyncio.wait([attaching])
        error = attaching.exception()
        assert error is None or isinstance(error, EngineUnavailable)
        await h.restore_link()
        await h.engine.broker.attach(["a"])
        await other.publish("a", b"1")
        await h.settle()
        assert h.node.payloads("a") == [b"1"]

    run_link(scenario)


def test_a_node_without_its_link_is_not_live(run_link: Run) -> None:
    """Messages to it are refused or lost, surveys do not wait for it longer than their time, and it comes back with
    its uid. Messages between the other nodes go on.
    """

    async def scenario(h: Harness) -> None:
        other = await h.join(OTHER)
        await h.lose_link()
        assert list(await other.engine.control.nodes()) == [OTHER]
        assert await other.engine.control.send(NODE, b"lost") is False
        survey = asyncio.ensure_future(other.engine.control.survey(b"?", 2.0))
        await settle()
        await h.advance(2.0)
        assert await survey == [b"pong ?"]
        await other.engine.control.broadcast(b"alone")
        await h.restore_link()
        assert await other.engine.control.send(NODE, b"back") is True
        await h.settle()
        assert (h.node.control, other.node.control) == ([b"back"], [b"alone"])
        assert sorted(await h.engine.control.nodes()) == [NODE, OTHER]

    run_link(scenario)


def test_presence_and_keys_survive_a_lost_link(run_link: Run) -> None:
    """They belong to the engine: entries stay until they expire, and a repeated publish is still suppressed."""

    async def scenario(h: Harness) -> None:
        keyed = PublishOptions(history=HISTORY, idempotency_key="k")
        first = await h.publish("a", b"1", keyed)
        await h.engine.presence.add("a", [ANN], 60.0)
        await h.lose_link()
        await h.restore_link()
        assert await h.engine.presence.members("a") == {"c1": ANN}
        repeated = await h.publish("a", b"1", keyed)
        assert (repeated.suppressed, repeated.position) == ("idempotency", first.position)
        await h.lose_link()
        await h.advance(61.0)
        await h.restore_link()
        assert list(await h.engine.presence.refresh("a", ["c1"], 60.0)) == ["c1"]

    run_link(scenario)


def test_a_link_can_be_lost_many_times(run_link: Run) -> None:
    """Each time the node attaches again, and announcements stay in order and without repetition."""

    async def scenario(h: Harness) -> None:
        other = await h.join(OTHER)
        for _ in range(10):
            await h.engine.broker.attach(["a"])
            await other.publish("a")
            await h.settle()
            await other.publish("a")
            await h.lose_link()
            await h.restore_link()
        offsets = h.node.offsets("a")
        assert offsets == sorted(set(offsets))
        assert set(range(1, 20, 2)) <= set(offsets)
        assert h.node.links == [("down", None), ("up", None)] * 10

    run_link(scenario)
