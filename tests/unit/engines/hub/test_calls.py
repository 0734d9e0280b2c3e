"""Calls of an inner engine that suspends: each runs in a task, and attachments are counted over all workers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from beaconfire.base.errors import EngineUnavailable, NotReplicated, StorageFull
from beaconfire.base.tasks import start_task
from beaconfire.engines.hub import connection as connections
from beaconfire.engines.hub.channels import ATTACH_TIMEOUT_S
from beaconfire.engines.port import HistoryOptions, PublishOptions
from beaconfire.engines.wire.messages import Done, Failed, Outcome, Page, Ping, Publish, ReadHistory
from beaconfire.model.events import InternalError
from tests.fakes.hub import wait_until

from .support import HISTORY, KEPT, Inner, Setup, run


async def settle() -> None:
    """Lets everything continue until it waits for something that the test controls."""
    for _ in range(30):
        await asyncio.sleep(0)


def test_a_call_that_waits_does_not_delay_others(tmp_path: Path) -> None:
    """Neither of the same worker nor of another one. Replies come in the order in which the calls end."""

    async def scenario(s: Setup) -> None:
        peer, other = await s.greet(), await s.greet()
        s.calls.hold("publish")
        peer.send(Publish(1, "a", b"1", KEPT, None, None), Ping(2))
        other.send(Ping(1))
        assert await peer.receive() == Done(2)
        assert await other.receive() == Done(1)
        s.calls.release("publish")
        assert isinstance(await peer.receive(), Outcome)

    run(tmp_path, scenario, "suspending")


def test_a_call_that_is_immediate_needs_no_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publish or a page of history of a durability for which the inner engine promises this. All others have one."""
    started: list[str] = []

    def start(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        started.append("task")
        return start_task(coroutine)

    monkeypatch.setattr(connections, "start_task", start)

    async def scenario(s: Setup) -> None:
        peer = await s.greet()
        peer.send(Publish(1, "a", b"1", KEPT, None, None), ReadHistory(2, "a", HISTORY, -1, None, False))
        assert [type(await peer.receive()) for _ in range(2)] == [Outcome, Page]
        assert started == []
        on_disk = HistoryOptions(10, 60.0, durability="disk")
        peer.send(Publish(3, "a", b"1", PublishOptions(history=on_disk), None, None))
        peer.send(ReadHistory(4, "a", on_disk, -1, None, False), Ping(5))
        assert [type(await peer.receive()) for _ in range(3)] == [Failed, Page, Done]
        assert started == ["task"] * 3

    run(tmp_path, scenario, "immediate")


def test_the_inner_engine_is_attached_once(tmp_path: Path) -> None:
    """While one attach waits, the attach of another worker waits for the same one. After the last detach the inner
    engine is detached, some time later."""

    async def scenario(s: Setup) -> None:
        one, two = await s.join("node-1"), await s.join("node-2")
        release = s.calls.hold("attach")
        attaching = [asyncio.ensure_future(each.engine.broker.attach(["a"])) for each in (one, two)]
        await settle()
        assert not any(each.done() for each in attaching)
        release()
        await asyncio.gather(*attaching)
        assert [each for each in s.calls.completed if "attach" in each] == ["attach a"]
        await one.engine.broker.detach(["a"])
        await two.publish("a", b"1", KEPT)
        await two.engine.broker.ping()
        assert (one.node.payloads("a"), two.node.payloads("a")) == ([], [b"1"])
        await two.engine.broker.detach(["a"])
        s.advance(20.0)
        await settle()
        assert [each for each in s.calls.completed if "attach" in each or "detach" in each] == ["attach a", "detach a"]

    run(tmp_path, scenario, "suspending")


@pytest.mark.parametrize("inner", ["memory", "suspending"])
def test_an_attach_that_fails_is_an_error_of_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: Inner
) -> None:
    """With the error of the inner engine. The next attach tries again."""

    async def fail(channels: Sequence[str]) -> None:
        raise EngineUnavailable("no answer from the disk")

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        with monkeypatch.context() as patched:
            patched.setattr(s.memory.broker, "attach", fail)
            with pytest.raises(EngineUnavailable, match="no answer from the disk"):
                await member.engine.broker.attach(["a", "b"])
        await member.engine.broker.attach(["a"])
        await member.publish("a", b"1", KEPT)
        await member.engine.broker.ping()
        assert member.node.payloads("a") == [b"1"]

    run(tmp_path, scenario, inner)


def test_a_worker_that_dies_during_its_attach_leaves_nothing(tmp_path: Path) -> None:
    """The inner engine is detached when the attach has ended."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        release = s.calls.hold("attach")
        attaching = asyncio.ensure_future(member.engine.broker.attach(["a"]))
        await settle()
        s.local.cut("node-1")
        with pytest.raises(EngineUnavailable):
            await attaching
        await s.wait_end()
        release()
        await settle()
        assert s.local.hub.statistics().attached_channels == 0
        for _ in range(3):
            s.advance(20.0)
            await settle()
        assert s.memory.broker.statistics().attached_channels == 0

    run(tmp_path, scenario, "suspending")


@pytest.mark.parametrize(
    "error", [NotReplicated("1 of 2 replicas"), StorageFull("no space"), EngineUnavailable("no answer")]
)
def test_errors_travel_with_their_type(tmp_path: Path, error: NotReplicated | StorageFull | EngineUnavailable) -> None:
    """And their detail. They are no defects of the hub."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        s.calls.fail_next("publish", error)
        with pytest.raises(type(error)) as raised:
            await member.publish("a", b"1", KEPT)
        assert raised.value.detail == error.detail
        assert s.events.of(InternalError) == []

    run(tmp_path, scenario, "suspending")


@pytest.mark.parametrize("error", [LookupError("a defect"), asyncio.CancelledError()])
def test_a_defect_is_one_failed_call(tmp_path: Path, error: Exception) -> None:
    """Also a CancelledError that nobody has caused. The hub reports it, and the connection stays."""

    async def scenario(s: Setup) -> None:
        peer = await s.greet()
        s.calls.fail_next("publish", error)
        peer.send(Publish(1, "a", b"1", KEPT, None, None))
        failed = await peer.receive()
        assert isinstance(failed, Failed)
        assert (failed.id, failed.kind) == (1, "unavailable")
        assert type(error).__name__ in failed.detail
        assert [event.where for event in s.events.of(InternalError)] == ["hub Publish"]
        peer.send(Ping(2))
        assert await peer.receive() == Done(2)

    run(tmp_path, scenario, "suspending")


def test_too_many_calls_of_one_worker_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more of this worker is read, until one of them has ended."""
    monkeypatch.setattr(connections, "CALLS_MAX", 10)

    async def scenario(s: Setup) -> None:
        peer, other = await s.greet(), await s.greet()
        s.calls.hold("publish")
        peer.send(*(Publish(number, "a", b"1", KEPT, None, None) for number in range(1, 26)), Ping(26))
        await wait_until(lambda: s.events.limits() == ["hub_calls_max"])
        other.send(Ping(1))
        assert await other.receive() == Done(1)
        assert "ping " not in s.calls.completed[:-1]
        s.calls.release("publish")
        await settle()
        ids = set()
        for _ in range(26):
            reply = await peer.receive()
            ids.add(getattr(reply, "id", 0))
        assert ids == set(range(1, 27))

    run(tmp_path, scenario, "suspending")


def test_a_hub_that_stops_does_not_wait_for_calls(tmp_path: Path) -> None:
    """The worker gets EngineUnavailable: the outcome is not known."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        s.calls.hold("publish")
        publishing = asyncio.ensure_future(member.publish("a", b"1", KEPT))
        await settle()
        await s.local.stop()
        with pytest.raises(EngineUnavailable):
            await publishing
        assert s.ends == ["the hub stops"]

    run(tmp_path, scenario, "suspending")


def test_a_link_that_the_inner_engine_loses_is_lost_for_all_workers(tmp_path: Path) -> None:
    """They are told, their attachments are void, and after the link is up they attach again."""

    async def scenario(s: Setup) -> None:
        members = [await s.join("node-1"), await s.join("node-2")]
        one = members[0]
        for member in members:
            await member.engine.broker.attach(["a", "b"])
        for lost in (["a"], None):
            s.inner_link.lose(lost)
            await s.settle()
            assert [member.node.links[-1] for member in members] == [("down", lost)] * 2
            attaching = asyncio.ensure_future(one.engine.broker.attach(["a"]))
            await settle()
            assert not attaching.done()
            s.advance(ATTACH_TIMEOUT_S)
            with pytest.raises(EngineUnavailable):
                await attaching
            s.inner_link.restore(lost)
            await one.publish("a", b"not announced", KEPT)
            await s.settle()
            assert [member.node.links[-1] for member in members] == [("up", lost)] * 2
            for member in members:
                await member.engine.broker.attach(["a", "b"])
            await one.publish("a", b"1", KEPT)
            await s.settle()
        for member in members:
            assert member.node.payloads("a") == [b"1", b"1"]

    run(tmp_path, scenario, "shared")


def test_an_attach_during_which_the_inner_engine_loses_its_link_fails(tmp_path: Path) -> None:
    """The attachment is void, so the worker must not believe in it."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        release = s.calls.hold("attach")
        attaching = asyncio.ensure_future(member.engine.broker.attach(["a"]))
        await settle()
        s.inner_link.lose()
        s.inner_link.restore()
        release()
        with pytest.raises(EngineUnavailable, match="has lost its link"):
            await attaching

    run(tmp_path, scenario, "shared")
