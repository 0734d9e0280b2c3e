"""The control bus between workers: surveys that end early, late and not at all, and buses that are not started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from beaconfire.base.errors import EngineUnavailable
from beaconfire.engines.port import ControlBus
from beaconfire.engines.wire.messages import Control, StopControl, SurveyAnswer, SurveyQuestion
from tests.fakes.hub import wait_until
from tests.unit.engines.hub.support import Setup, run


async def question(peer: Any) -> SurveyQuestion:
    message = await peer.receive()
    assert isinstance(message, SurveyQuestion)
    return message


def test_a_survey_ends_with_its_time(tmp_path: Path) -> None:
    """With the answers that have come. An answer that comes later, twice or without a question is dropped."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        quick, slow = await s.greet("node-2"), await s.greet("node-3")
        asking = asyncio.ensure_future(member.engine.control.survey(b"?", 2.0))
        asked = await question(quick)
        assert asked.request == b"?"
        assert (await question(slow)).survey == asked.survey
        quick.send(SurveyAnswer(asked.survey, b"quick"), SurveyAnswer(asked.survey, b"twice"))
        quick.send(SurveyAnswer(77, b"unknown"))
        await s.settle()
        assert not asking.done()
        s.advance(2.0)
        assert await asking == [b"pong ?", b"quick"]
        slow.send(SurveyAnswer(asked.survey, b"late"))
        await s.settle()
        assert s.ends == []

    run(tmp_path, scenario)


@pytest.mark.parametrize("stops", [True, False], ids=["stops", "dies"])
def test_a_survey_does_not_wait_for_a_node_that_ends(tmp_path: Path, stops: bool) -> None:
    """It has the answers of the others."""

    async def scenario(s: Setup) -> None:
        member, other = await s.join("node-1"), await s.join("node-2")
        peer = await s.greet("node-3")
        asking = asyncio.ensure_future(member.engine.control.survey(b"?", 2.0))
        await question(peer)
        await s.settle()
        if stops:
            peer.send(StopControl(1))
        else:
            peer.close()
        assert sorted(await asking) == [b"pong ?", b"pong ?"]
        assert sorted(await other.engine.control.nodes()) == ["node-1", "node-2"]

    run(tmp_path, scenario)


def test_a_survey_ends_with_the_link_of_its_node(tmp_path: Path) -> None:
    """And answers that come after that are dropped."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        peer = await s.greet("node-2")
        asking = asyncio.ensure_future(member.engine.control.survey(b"?", 2.0))
        asked = await question(peer)
        s.local.cut("node-1")
        with pytest.raises(EngineUnavailable):
            await asking
        await s.wait_end()
        peer.send(SurveyAnswer(asked.survey, b"late"))
        s.advance(2.0)
        assert await s.is_working()

    run(tmp_path, scenario)


CALLS: dict[str, Callable[[ControlBus], Coroutine[Any, Any, Any]]] = {
    "broadcast": lambda control: control.broadcast(b"1"),
    "send": lambda control: control.send("node-1", b"1"),
    "survey": lambda control: control.survey(b"1", 0.0),
    "nodes": lambda control: control.nodes(),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_bus_that_is_not_started_refuses_calls(tmp_path: Path, name: str) -> None:
    """Before its start and after its end, as the buses of other engines."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        await member.engine.control.stop()
        with pytest.raises(RuntimeError, match="not started"):
            await CALLS[name](member.engine.control)

    run(tmp_path, scenario)


def test_messages_and_questions_for_a_bus_that_has_stopped_are_dropped(tmp_path: Path) -> None:
    """They may be on their way when it stops."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        connection = s.local.connection_of("node-1")
        assert connection is not None
        await member.engine.control.stop()
        connection.reply(Control(b"late"))
        connection.reply(SurveyQuestion(1, b"late"))
        await member.engine.broker.ping()
        assert member.node.control == []

    run(tmp_path, scenario)


def test_a_bus_stops_without_its_link(tmp_path: Path) -> None:
    """Without a link the node is not live, so there is nothing to ask for. After the link is up, it is not live."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        s.local.cut("node-1")
        await wait_until(lambda: len(member.node.links) == 1)
        with pytest.raises(EngineUnavailable):
            await member.engine.control.broadcast(b"1")
        await member.engine.control.stop()
        s.local.reconnect()
        await wait_until(lambda: len(member.node.links) == 2)
        assert s.local.connection_of("node-1") is None
        await member.engine.control.start("node-1 again", member.node)
        assert list(await member.engine.control.nodes()) == ["node-1 again"]

    run(tmp_path, scenario)


def test_a_start_without_the_link_can_be_repeated(tmp_path: Path) -> None:
    """The node is not registered meanwhile."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        connection = s.local.connection_of("node-1")
        assert connection is not None
        await member.engine.control.stop()
        connection.close("cut by a test")
        await wait_until(lambda: len(member.node.links) == 1)
        with pytest.raises(EngineUnavailable):
            await member.engine.control.start("node-1", member.node)
        s.local.reconnect()
        await wait_until(lambda: len(member.node.links) == 2)
        assert s.local.connection_of("node-1") is None
        await member.engine.control.start("node-1", member.node)
        assert list(await member.engine.control.nodes()) == ["node-1"]

    run(tmp_path, scenario)


def test_a_node_may_start_again_under_another_uid(tmp_path: Path) -> None:
    """On the same connection. The former uid is not live any more."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        await member.engine.control.stop()
        await member.engine.control.start("node-2", member.node)
        assert await member.engine.control.send("node-1", b"1") is False
        assert list(await member.engine.control.nodes()) == ["node-2"]

    run(tmp_path, scenario)
