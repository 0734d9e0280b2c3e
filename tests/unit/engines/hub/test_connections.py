"""Peers that break the rules lose their connection, with a reason, and disturb nobody else."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from msgspec import Raw

from beaconfire.base.errors import LIMIT_EXCEEDED, CommandError, EngineUnavailable
from beaconfire.engines.hub import channels
from beaconfire.engines.hub import connection as connections
from beaconfire.engines.hub.connection import HELLO_TIMEOUT_S
from beaconfire.engines.port import PublishOptions
from beaconfire.engines.remote import connection as remote_connections
from beaconfire.engines.wire import frames
from beaconfire.engines.wire.frames import REQUEST_BYTES_MAX
from beaconfire.engines.wire.messages import (
    PROTOCOL,
    Attach,
    Done,
    Hello,
    Page,
    Ping,
    Publish,
    ReadHistory,
    ReadNodes,
    Refused,
    Welcome,
    encode,
)
from beaconfire.model.events import InternalError
from tests.fakes.hub import VERSION, wait_until

from .support import HISTORY, KEPT, RawPeer, RunLoop, Setup, each_loop, run


@each_loop
def test_a_worker_is_welcomed(tmp_path: Path, run_loop: RunLoop) -> None:
    """The hub says who it is and what its engine offers."""

    async def scenario(s: Setup) -> None:
        peer = await s.connect()
        peer.send(Hello(PROTOCOL, "", "9.9"))
        assert await peer.receive() == Welcome(PROTOCOL, "hub-1", VERSION, "memory", ("memory",), True)
        peer.send(Ping(7))
        assert await peer.receive() == Done(7)
        peer.close()
        await s.wait_end()
        assert s.ends == [""]

    run(tmp_path, scenario, run_loop=run_loop)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", f"a frame of {0x47455420} bytes, more than {REQUEST_BYTES_MAX + 5}"),
        (b"\x00\x00\x00\x01\xc1", "not a message: MessagePack data is malformed: invalid opcode '\\xc1' (byte 0)"),
        (b"\x00\x00\x00\x00", "not a message: Input data was truncated"),
        (frames.to_frame([encode(Ping(1))]), "the first message is Ping and not Hello"),
    ],
    ids=["http", "garbage", "empty", "ping"],
)
@pytest.mark.parametrize("is_welcome", [False, True])
@each_loop
def test_what_is_not_expected_ends_the_connection(
    tmp_path: Path, data: bytes, reason: str, is_welcome: bool, run_loop: RunLoop
) -> None:
    """At the beginning and later. Other connections go on."""
    if is_welcome and data == frames.to_frame([encode(Ping(1))]):
        data, reason = frames.to_frame([encode(Hello(PROTOCOL, "", ""))]), "a second Hello"

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        peer = await s.greet() if is_welcome else await s.connect()
        peer.send_bytes(data)
        assert await peer.wait_closed() == b""
        await s.wait_end()
        assert s.ends == [reason]
        await member.engine.broker.ping()
        assert member.node.links == []
        assert await s.is_working()

    run(tmp_path, scenario, run_loop=run_loop)


@each_loop
def test_another_version_of_the_protocol_is_refused(tmp_path: Path, run_loop: RunLoop) -> None:
    """The worker is told both versions, before the connection ends."""

    async def scenario(s: Setup) -> None:
        peer = await s.connect()
        peer.send(Hello(PROTOCOL + 1, "node-1", "9.9"), Ping(1))
        refused = await peer.receive()
        assert isinstance(refused, Refused)
        assert refused.reason == f"protocol 2 of version 9.9; the hub has version {VERSION} with protocol 1"
        assert await peer.wait_closed() == b""
        await s.wait_end()
        assert s.ends == [refused.reason]

    run(tmp_path, scenario, run_loop=run_loop)


def test_a_connection_without_hello_ends_in_time(tmp_path: Path) -> None:
    """With one, it stays."""

    async def scenario(s: Setup) -> None:
        silent, other = await s.connect(), await s.greet()
        await wait_until(lambda: s.local.hub.statistics().connections == 2)
        s.advance(HELLO_TIMEOUT_S)
        assert await silent.wait_closed() == b""
        await s.wait_end()
        assert (s.ends, s.events.limits()) == (["no hello within 5 s"], ["hub_hello_timeout"])
        other.send(Ping(1))
        assert await other.receive() == Done(1)

    run(tmp_path, scenario)


@each_loop
def test_a_process_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_loop: RunLoop
) -> None:
    """Whatever the mode of the socket is."""

    async def scenario(s: Setup) -> None:
        uid = os.geteuid()
        with monkeypatch.context() as patched:
            patched.setattr(os, "geteuid", lambda: uid + 1)
            peer = await s.connect()
            assert await peer.wait_closed() == b""
            await s.wait_end()
        assert "belongs to the user" in s.ends[0]
        assert await s.is_working()

    run(tmp_path, scenario, run_loop=run_loop)


@each_loop
def test_a_worker_that_does_not_read_loses_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_loop: RunLoop
) -> None:
    """When more than the limit waits for it. The others get everything."""
    monkeypatch.setattr(frames, "OUTPUT_BYTES_MAX", 4 * 1024 * 1024)

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        await member.engine.broker.attach(["a"])
        deaf = await s.greet("node-2")
        deaf.send(Attach(1, ["a"]))
        await deaf.receive()
        published = 0
        while not s.ends:
            await member.publish("a", b"x" * 100_000, KEPT)
            published += 1
        assert s.local.hub.statistics().waiting_bytes < 4 * 1024 * 1024
        assert s.ends == ["more than 4194304 bytes wait, because the other end does not read"]
        assert s.events.limits() == ["hub_output_max"]
        await member.engine.broker.ping()
        assert member.node.offsets("a") == list(range(1, published + 1))
        assert list(await member.engine.control.nodes()) == ["node-1"]

    run(tmp_path, scenario, run_loop=run_loop)


@each_loop
def test_requests_of_a_worker_that_does_not_read_wait(tmp_path: Path, run_loop: RunLoop) -> None:
    """So its replies do not fill the memory of the hub. When it reads, it gets all of them in order."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        await member.publish("a", b"x" * 1_000_000, KEPT)
        peer = await s.greet()
        for number in range(1, 51):
            peer.send(ReadHistory(number, "a", HISTORY, -1, None, False))
        most = 0
        for _ in range(2000):
            await asyncio.sleep(0)
            most = max(most, s.local.hub.statistics().waiting_bytes)
        assert 0 < most < 5_000_000
        for number in range(1, 51):
            page = await peer.receive()
            assert isinstance(page, Page)
            assert page.id == number

    run(tmp_path, scenario, run_loop=run_loop)


def test_a_request_that_is_too_long_is_refused_by_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With error 106, which names both sizes. The link stays."""
    monkeypatch.setattr(remote_connections, "REQUEST_BYTES_MAX", 1000)

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        with pytest.raises(CommandError) as refused:
            await member.publish("a", b"x" * 1000, KEPT)
        assert refused.value.code is LIMIT_EXCEEDED
        assert "and the hub takes 1000 at most" in refused.value.detail
        await member.publish("a", b"1", KEPT)
        assert await member.offsets("a") == [1]

    run(tmp_path, scenario)


def test_an_answer_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With error 106. A shorter page works, and the link stays."""
    monkeypatch.setattr(connections, "MESSAGE_BYTES_MAX", 1000)

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        for _ in range(3):
            await member.publish("a", b"x" * 400, KEPT)
        with pytest.raises(CommandError) as refused:
            await member.offsets("a")
        assert refused.value.code is LIMIT_EXCEEDED
        assert "ask for less" in refused.value.detail
        page = await member.engine.broker.history("a", HISTORY, 1)
        assert page.publications[0].offset == 1

    run(tmp_path, scenario)


@each_loop
def test_a_busy_worker_leaves_time_for_the_others(tmp_path: Path, run_loop: RunLoop) -> None:
    """A worker that sends ten thousand requests at once does not delay the request of another one by all of them."""

    async def scenario(s: Setup) -> None:
        busy, other = await s.greet(), await s.greet()
        busy.send(*(Publish(number, "a", b"1", KEPT, None, None) for number in range(1, 10_001)))
        await asyncio.sleep(0)
        other.send(Ping(1))
        assert await other.receive() == Done(1)
        assert (await s.memory.broker.history("a", HISTORY, 0)).position.offset < 10_000

    run(tmp_path, scenario, run_loop=run_loop)


def test_a_defect_of_the_inner_engine_is_reported_at_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker gets EngineUnavailable, which says where to look. The connection stays."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")

        async def fail(*_: object) -> None:
            raise LookupError("a defect")

        with monkeypatch.context() as patched:
            patched.setattr(s.memory.broker, "publish", fail)
            with pytest.raises(EngineUnavailable) as raised:
                await member.publish("a", b"1", KEPT)
        assert "Publish: the hub has failed with LookupError" in raised.value.detail
        assert [event.where for event in s.events.of(InternalError)] == ["hub Publish"]
        await member.publish("a", b"1", KEPT)

    run(tmp_path, scenario)


@each_loop
def test_a_connection_that_ends_is_forgotten(tmp_path: Path, run_loop: RunLoop) -> None:
    """With its attachments, however many, and its node."""

    async def scenario(s: Setup) -> None:
        member = await s.join("node-1")
        names = [f"channel-{number}" for number in range(5000)]
        await member.engine.broker.attach(names)
        peer = await s.greet("node-2")
        peer.send(Attach(1, [*names[:2500], "own"]), ReadNodes(2))
        await peer.receive()
        await peer.receive()
        assert s.local.hub.statistics().attached_channels == 5001
        peer.close()
        await s.wait_end()
        await wait_until(lambda: s.local.hub.statistics().attached_channels == 5000)
        assert list(await member.engine.control.nodes()) == ["node-1"]
        await member.stop()
        await s.wait_end(2)
        await wait_until(lambda: s.local.hub.statistics().attached_channels == 0)
        assert s.memory.broker.statistics().attached_channels == 5001
        s.advance(20.0)
        assert s.memory.broker.statistics().attached_channels == 0
        statistics = s.local.hub.statistics()
        assert (statistics.connections, statistics.waiting_bytes) == (0, 0)

    run(tmp_path, scenario, run_loop=run_loop)


def test_a_publication_is_encoded_once_for_all_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes go to each of them."""
    made: list[bytes] = []

    def encode_once(message: object) -> bytes:
        made.append(encode(message))
        return made[-1]

    monkeypatch.setattr(channels, "encode", encode_once)

    async def scenario(s: Setup) -> None:
        members = [await s.join(f"node-{number}") for number in range(3)]
        for member in members:
            await member.engine.broker.attach(["a"])
        await members[0].engine.broker.publish("a", Raw(b"1"), KEPT)
        await members[0].engine.broker.publish("b", Raw(b"1"), KEPT)
        for member in members:
            await member.engine.broker.ping()
            assert member.node.payloads("a") == [b"1"]
        assert len(made) == 1

    run(tmp_path, scenario)


def test_announcements_come_before_the_reply(tmp_path: Path) -> None:
    """Of the same request and of those before it, because one stream carries both."""

    async def scenario(s: Setup) -> None:
        peer: RawPeer = await s.greet()
        peer.send(Attach(1, ["a"]), *(Publish(number, "a", b"1", KEPT, None, None) for number in (2, 3)), Ping(4))
        kinds = [type(await peer.receive()).__name__ for _ in range(6)]
        assert kinds == ["Done", "Announced", "Outcome", "Announced", "Outcome", "Done"]
        peer.send(Publish(5, "a", b"1", PublishOptions(), None, None))
        kinds = [type(await peer.receive()).__name__ for _ in range(2)]
        assert kinds == ["Announced", "Outcome"]

    run(tmp_path, scenario)
