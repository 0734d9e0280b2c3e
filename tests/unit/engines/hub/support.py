"""A hub at a real socket, engines of workers, and peers that send any bytes."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
import uvloop
from msgspec.structs import replace

from beaconfire.base.clock import ManualClock
from beaconfire.base.timers import Timers
from beaconfire.engines.memory import MemoryEngine
from beaconfire.engines.port import Engine, HistoryOptions, PublishOptions
from beaconfire.engines.wire.frames import to_frame
from beaconfire.engines.wire.messages import PROTOCOL, FromHub, Hello, Message, decode_from_hub, encode
from beaconfire.model.events import HubConnectionEnded
from beaconfire.testing import ManualCalls, SharedStore, control_calls
from tests.conformance.engines.harness import Member
from tests.fakes.events import EventRecorder
from tests.fakes.hub import VERSION, LocalHub, wait_until

HISTORY = HistoryOptions(10, 60.0)
KEPT = PublishOptions(history=HISTORY)
TIMEOUT_S = 20.0

Inner: TypeAlias = Literal["memory", "suspending", "immediate", "shared"]
"""The inner engine: a memory engine; the same, but its calls run through `Setup.calls` and may suspend; the same, but
it promises that calls about streams in memory do not suspend; or one with a link, `Setup.inner_link`."""

RunLoop: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]

each_loop = pytest.mark.parametrize("run_loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
"""Runs a test on both event loops, whose transports differ in details."""


class RawPeer:
    """A process that connects to the hub and sends what a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._received: deque[FromHub] = deque()
        """Messages of frames that `receive` has not returned yet."""

    def send(self, *messages: Message) -> None:
        self.send_bytes(to_frame([encode(message) for message in messages]))

    def send_bytes(self, data: bytes) -> None:
        self._writer.write(data)

    async def receive(self) -> FromHub:
        """The next message. IncompleteReadError if the hub has closed the connection."""
        while not self._received:
            length = int.from_bytes(await self._reader.readexactly(4), "big")
            self._received += decode_from_hub(await self._reader.readexactly(length))
        return self._received.popleft()

    async def wait_closed(self) -> bytes:
        """What the hub has sent before it closed the connection."""
        received = b""
        try:
            while data := await self._reader.read(65_536):
                received += data
        except ConnectionError:
            pass  # It has closed the connection without reading everything.
        return received

    def close(self) -> None:
        self._writer.close()


class Setup:
    """A hub and its workers. Only a test moves the clocks: `clock` is that of the hub."""

    def __init__(self, path: Path, inner: Inner) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.events = EventRecorder(expects_errors=True)
        self.calls = ManualCalls()
        store = SharedStore(self.timers, random.Random(0).random, asyncio.get_running_loop().call_soon)
        self.memory: MemoryEngine = store.memory
        shared = store.connect()
        self.inner_link = shared.link
        engine: Engine = shared if inner == "shared" else self.memory
        if inner != "memory":
            engine = control_calls(engine, self.calls)
        if inner == "immediate":
            engine = replace(engine, immediate=("memory",))
        self.local = LocalHub(str(path / "hub"), engine, self.timers, self.events)
        self.members: list[Member] = []
        self.peers: list[RawPeer] = []

    async def join(self, uid: str) -> Member:
        """One more worker with a node. It may lose its link."""
        member = Member(self.local.worker())
        member.node.expects_link_events = True
        self.members.append(member)
        await member.start(uid)
        return member

    async def connect(self) -> RawPeer:
        """One more connection, without any message."""
        peer = RawPeer(*await asyncio.open_unix_connection(self.local.path))
        self.peers.append(peer)
        return peer

    async def greet(self, node: str = "") -> RawPeer:
        """One more connection, which has been welcomed."""
        peer = await self.connect()
        peer.send(Hello(PROTOCOL, node, VERSION))
        await peer.receive()
        return peer

    def advance(self, seconds: float) -> None:
        """Lets this much time pass for the hub."""
        self.clock.advance(seconds)
        self.timers.run_due()

    @property
    def ends(self) -> list[str]:
        """Why connections have ended."""
        return [event.reason for event in self.events.of(HubConnectionEnded)]

    async def wait_end(self, count: int = 1) -> None:
        """Waits until this many connections have ended."""
        await wait_until(lambda: len(self.ends) >= count)

    async def settle(self) -> None:
        """Waits until the workers have everything that the hub and its inner engine have announced."""
        for _ in range(10):
            await asyncio.sleep(0)
        for member in self.members:
            await member.engine.control.nodes()  # answered by the hub itself, after everything that it has sent before

    async def is_working(self) -> bool:
        """Whether the hub serves a worker that comes now."""
        member = Member(self.local.worker())
        await member.start("a visitor")
        await member.engine.broker.attach(["visited"])
        await member.publish("visited", b"1", KEPT)
        await member.engine.broker.ping()
        payloads = member.node.payloads("visited")
        await member.stop()
        return payloads == [b"1"]


def run(
    path: Path, scenario: Callable[[Setup], Awaitable[None]], inner: Inner = "memory", run_loop: RunLoop = asyncio.run
) -> None:
    """Runs a scenario with a new hub."""

    async def play() -> None:
        setup = Setup(path, inner)
        await setup.local.start()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await scenario(setup)
        finally:
            for peer in setup.peers:
                peer.close()
            for member in setup.members:
                await member.stop()
            await setup.local.stop()

    run_loop(play())
