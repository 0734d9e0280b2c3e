"""The link of a worker to the hub: what the node is told, what happens to its calls, and how the link comes back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from beaconfire.base.errors import EngineUnavailable
from beaconfire.engines.port import EngineStatistics
from beaconfire.engines.remote import remote_engine
from beaconfire.engines.remote.connection import HANDSHAKE_TIMEOUT_S
from beaconfire.engines.remote.link import DELAY_MAX_S
from beaconfire.engines.wire.frames import to_frame
from beaconfire.engines.wire.messages import Done, Message, Refused, Welcome
from beaconfire.engines.wire.unix_socket import HubSocketError
from tests.conformance.engines.harness import Member
from tests.fakes.hub import VERSION, runtime, wait_until
from tests.unit.engines.hub.support import HISTORY, KEPT, RunLoop, Setup, each_loop, run

DOWN, UP = ("down", None), ("up", None)


async def settle() -> None:
    """Lets everything continue until it waits for something that the test controls."""
    for _ in range(30):
        await asyncio.sleep(0)


@each_loop
def test_a_hub_that_stops_in_the_middle_of_calls(tmp_path: Path, run_loop: RunLoop) -> None:
    """Waiting calls and later calls fail with EngineUnavailable. A new hub on the same path heals the link: the node is
    live again, attaches, and finds what it needs. The node knows that it is another hub.
    """

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        await member.engine.broker.attach(["a"])
        await member.publish("a", b"1", KEPT)
        assert s.members[0].engine.state().up
        s.calls.hold("history")
        reading = asyncio.ensure_future(member.engine.broker.history("a", HISTORY, -1))
        await settle()
        await s.local.stop()
        with pytest.raises(EngineUnavailable, match="lost before the answer"):
            await reading
        await wait_until(lambda: member.node.links == [DOWN])
        with pytest.raises(EngineUnavailable, match="Publish: engine 'remote': the link to the hub is down"):
            await member.publish("a", b"lost", KEPT)
        for _ in range(3):
            s.local.reconnect()
            await settle()
        state = member.engine.state()
        assert (state.up, s.local.path in state.detail) == (False, True)
        s.calls.release("history")
        await s.local.restart()
        s.local.reconnect()
        await wait_until(lambda: member.node.links == [DOWN, UP])
        assert list(await member.engine.control.nodes()) == ["node-1"]
        await member.engine.broker.attach(["a"])
        await member.publish("a", b"2", KEPT)
        await member.engine.broker.ping()
        assert member.node.payloads("a") == [b"1", b"2"]
        assert s.local.worker_links[0].hub is not None
        assert s.local.worker_links[0].hub.instance == "hub-2"

    run(tmp_path, scenario, "suspending", run_loop=run_loop)


@each_loop
def test_a_publish_whose_reply_was_lost_is_not_repeated(tmp_path: Path, run_loop: RunLoop) -> None:
    """The caller gets EngineUnavailable, and the publication is stored once."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        s.calls.hold("publish", after=True)
        publishing = asyncio.ensure_future(member.publish("a", b"1", KEPT))
        await settle()
        s.local.cut("node-1")
        with pytest.raises(EngineUnavailable):
            await publishing
        s.calls.release("publish", after=True)
        s.local.reconnect()
        await wait_until(lambda: member.node.links == [DOWN, UP])
        assert await member.offsets("a") == [1]

    run(tmp_path, scenario, "suspending", run_loop=run_loop)


def test_the_delays_between_attempts_grow(tmp_path: Path) -> None:
    """They stay short, because an attempt costs next to nothing."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        impostor = Impostor(s, None)
        async with impostor:
            await wait_until(lambda: member.node.links == [DOWN])
            attempts_s: list[float] = []
            for tenths in range(1, 400):
                s.local.advance_links(0.1)
                await settle()
                if impostor.connections > len(attempts_s):
                    attempts_s.append(tenths / 10)
            delays_s = [later - earlier for earlier, later in pairwise([0.0, *attempts_s])]
            assert delays_s[0] <= 0.3
            assert delays_s[0] <= min(delays_s[-3:]) <= max(delays_s[-3:]) <= DELAY_MAX_S + 0.11
            assert member.node.links == [DOWN]

    run(tmp_path, scenario)


@each_loop
def test_a_start_without_a_hub_fails(tmp_path: Path, run_loop: RunLoop) -> None:
    """Nothing goes on in the background. With a hub, the same engine starts; a second start is a defect."""

    async def scenario(s: Setup) -> None:
        await s.local.stop()
        member = Member(s.local.worker())
        assert member.engine.state().up is False
        with pytest.raises(EngineUnavailable, match=f"cannot connect to {s.local.path}: No such file"):
            await member.start("node-1")
        assert len(s.local.links) == 0
        await s.local.restart()
        s.members.append(member)
        await member.start("node-1")
        assert member.engine.state().up is True
        assert (member.engine.statistics(), member.engine.sweep()) == (EngineStatistics(), False)
        with pytest.raises(RuntimeError, match="already started"):
            await member.engine.broker.start(member.node)
        with pytest.raises(RuntimeError, match="already started"):
            await member.engine.control.start("node-2", member.node)

    run(tmp_path, scenario, run_loop=run_loop)


def test_a_hub_with_other_durabilities_is_not_used(tmp_path: Path) -> None:
    """The detail names both, because the two processes have different configurations."""

    async def scenario(s: Setup) -> None:
        member = Member(s.local.worker(("memory", "disk")))
        with pytest.raises(EngineUnavailable, match="'memory' offers memory, and not memory, disk"):
            await member.start("node-1")
        await s.wait_end()
        assert member.engine.durabilities == ("memory", "disk")

    run(tmp_path, scenario)


def test_a_hub_with_another_order_of_publishes_is_not_used(tmp_path: Path) -> None:
    """A node that believed in an order would let publishes of a client overlap."""

    async def scenario(s: Setup) -> None:
        engine = remote_engine(s.local.path, runtime(s.local.links), VERSION, keeps_order=True)
        with pytest.raises(EngineUnavailable, match="'memory' does not keep the order of publishes"):
            await Member(engine).start("node-1")
        await s.wait_end()

    run(tmp_path, scenario, "suspending")


def test_publishes_that_do_not_wait_for_each_other_keep_their_order(tmp_path: Path) -> None:
    """As `Engine.keeps_order` promises."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        assert member.engine.keeps_order is True
        outcomes = await asyncio.gather(*(member.publish("a", b"%d" % number, KEPT) for number in range(1, 101)))
        assert [outcome.position.offset for outcome in outcomes] == list(range(1, 101))

    run(tmp_path, scenario)


@each_loop
def test_a_hub_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_loop: RunLoop) -> None:
    """It may be anybody who has created a socket at this path."""

    async def scenario(s: Setup) -> None:
        uid = os.geteuid()
        member = Member(s.local.worker())
        with monkeypatch.context() as patched:
            patched.setattr(os, "geteuid", lambda: uid + 1)
            with pytest.raises(EngineUnavailable, match="belongs to the user"):
                await member.start("node-1")
            await s.wait_end()

    run(tmp_path, scenario, run_loop=run_loop)


@each_loop
def test_after_stop_the_node_is_told_nothing(tmp_path: Path, run_loop: RunLoop) -> None:
    """Neither of the link nor of publications. A stop while the link is down ends the attempts. Both are idempotent."""

    async def scenario(s: Setup) -> None:
        one, two = await s.join("node-1"), await s.join("node-2")
        await one.engine.broker.attach(["a"])
        await one.stop()
        await one.stop()
        await two.publish("a", b"1", KEPT)
        await settle()
        assert (one.node.links, one.node.received) == ([], [])
        assert "stopped" in one.engine.state().detail
        s.local.cut("node-2")
        await wait_until(lambda: two.node.links == [DOWN])
        s.local.reconnect()
        await two.stop()
        await settle()
        s.local.reconnect()
        await settle()
        assert two.node.links == [DOWN]
        assert s.local.hub.statistics().connections == 0

    run(tmp_path, scenario, run_loop=run_loop)


def test_a_new_connection_of_a_node_replaces_the_earlier_one(tmp_path: Path) -> None:
    """The hub may see the new one first. The node stays live, and gets each message once."""

    async def scenario(s: Setup) -> None:
        other = await s.join("node-2")
        earlier = await s.greet("node-1")
        later = await s.greet("node-1")
        assert await earlier.wait_closed() == b""
        await s.wait_end()
        assert s.ends == ["the node node-1 has a new connection"]
        assert sorted(await other.engine.control.nodes()) == ["node-1", "node-2"]
        assert await other.engine.control.send("node-1", b"x") is True
        assert getattr(await later.receive(), "message", None) == b"x"

    run(tmp_path, scenario)


WELCOME = Welcome(1, "hub", VERSION, "memory", ("memory",), True)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([Refused("too old")], "the hub has refused this node: too old"),
        ([Done(1)], "the first message of the hub is Done and not Welcome"),
        ([], f"the hub has not answered within {HANDSHAKE_TIMEOUT_S:g} s"),
        (None, "the hub has closed the connection"),
    ],
    ids=["refused", "reply", "silence", "closed"],
)
def test_a_hub_that_does_not_welcome_the_node(tmp_path: Path, answers: list[Message] | None, reason: str) -> None:
    """Makes the start fail, with a reason."""

    async def scenario(s: Setup) -> None:
        async with Impostor(s, answers):
            member = Member(s.local.worker())
            starting = asyncio.ensure_future(member.start("node-1"))
            await wait_until(lambda: len(s.local.links) > 0 or starting.done())
            await settle()
            if answers == []:
                s.local.advance_links(HANDSHAKE_TIMEOUT_S)
            with pytest.raises(EngineUnavailable, match=reason):
                await starting

    run(tmp_path, scenario)


@pytest.mark.parametrize("message", [WELCOME, Refused("late")], ids=["welcome", "refused"])
def test_a_hub_that_breaks_the_protocol_later_loses_its_link(tmp_path: Path, message: Message) -> None:
    """As any other lost link."""

    async def scenario(s: Setup) -> None:
        async with Impostor(s, [WELCOME, message]):
            member = Member(s.local.worker())
            member.node.expects_link_events = True
            await member.engine.broker.start(member.node)
            await wait_until(lambda: member.node.links == [DOWN])
            assert "after the first message" in member.engine.state().detail
            await member.engine.broker.stop()

    run(tmp_path, scenario)


@each_loop
def test_a_link_that_is_lost_right_after_the_welcome_is_not_up(tmp_path: Path, run_loop: RunLoop) -> None:
    """Also if both arrive together."""

    async def scenario(s: Setup) -> None:
        async with Impostor(s, [WELCOME, None]):
            member = Member(s.local.worker())
            with pytest.raises(EngineUnavailable):
                await member.start("node-1")
            assert member.engine.state().up is False

    run(tmp_path, scenario, run_loop=run_loop)


def test_a_reply_that_nobody_waits_for_is_dropped(tmp_path: Path) -> None:
    """The call was cancelled, or the number is unknown."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        s.calls.hold("publish")
        cancelled = asyncio.ensure_future(member.publish("a", b"1", KEPT))
        await settle()
        cancelled.cancel()
        await settle()
        s.calls.release("publish")
        await settle()
        connection = s.local.connection_of("node-1")
        assert connection is not None
        connection.reply(Done(999_999))
        await member.engine.broker.ping()
        assert await member.offsets("a") == [1]

    run(tmp_path, scenario, "suspending")


def test_a_path_that_is_too_long_is_refused_at_once(tmp_path: Path) -> None:
    """Not at each attempt to connect."""

    async def scenario(s: Setup) -> None:
        s.local.path = f"{s.local.path}{'x' * 200}"
        with pytest.raises(HubSocketError, match="Use a shorter path"):
            s.local.worker()

    run(tmp_path, scenario)


class Impostor:
    """A server in the place of the hub, which sends these messages to each connection. None closes the connection."""

    def __init__(self, setup: Setup, answers: Sequence[Message | None] | None) -> None:
        self._local = setup.local
        self._answers: list[Message | None] = [None] if answers is None else list(answers)
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def connections(self) -> int:
        return len(self._writers)

    async def __aenter__(self) -> None:
        await self._local.stop()
        self._server = await asyncio.start_unix_server(self._serve, self._local.path)

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        await reader.read(1)
        for answer in self._answers:
            if answer is None:
                writer.close()
            else:
                writer.write(to_frame(answer))
