"""A whole server without its sockets, on an engine that a test makes slow and failing, and its clients."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Final
from unittest.mock import patch

from msgspec import json

from beaconfire.api.options import ApiOptions
from beaconfire.base.clock import SystemClock
from beaconfire.base.timers import PreciseTimers
from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.config import Config
from beaconfire.engines.options import EngineOptions
from beaconfire.engines.port import Engine
from beaconfire.protocols.centrifuge.connection import CentrifugeConnection
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.server.app import App
from beaconfire.server.engines import EngineRow, Needs
from beaconfire.session.options import ClientOptions
from beaconfire.testing import SharedEngine, SharedStore
from beaconfire.transports.traits import SessionTraits
from tests.acceptance.hostile_engine.client import CheckingClient, ClientTransport
from tests.acceptance.hostile_engine.lateness import LoopMeter
from tests.acceptance.hostile_engine.ledger import Ledger, record
from tests.fakes.transport import HANDSHAKE, LineWire

CLIENT_SLICE_S: Final = 0.002
"""How long clients read in one turn of the event loop."""

TIMEOUT_S: Final = 1.0
"""`engine.timeout`."""

_HISTORY: Final[dict[str, Any]] = {"history_size": 100_000, "history_ttl": Seconds(3600), "force_recovery": True}
NAMESPACES: Final = {
    "quiet": ChannelOptions(**_HISTORY),
    "seen": ChannelOptions(**_HISTORY, presence=True),
    "lively": ChannelOptions(**_HISTORY, presence=True, join_leave=True, force_push_join_leave=True),
}


class World:
    """`random` decides everything that is not left to the time of the event loop. Make it inside one."""

    def __init__(
        self, seed: int, make_hostile: Callable[[Engine, PreciseTimers, random.Random], Engine], **client: Any
    ) -> None:
        """`make_hostile` puts something in front of the calls of an engine that works. `client` are more fields of
        `ClientOptions`."""
        self.rng = random.Random(seed)
        self.meter = LoopMeter()
        self.ledger = Ledger()
        self.counts: Counter[str] = Counter()
        self.clients: list[CheckingClient] = []
        loop = asyncio.get_running_loop()
        self.timers = PreciseTimers(SystemClock(), loop.call_later)
        self.store = SharedStore(self.timers, self.rng.random, loop.call_soon)
        self.shared: SharedEngine = record(self.store.connect(), self.ledger)
        self._engine = make_hostile(self.shared, self.timers, self.rng)
        options = ClientOptions(
            **{"insecure": True, "channel_limit": 1000, "recovery_max_publication_limit": 100_000, **client}
        )
        self.app = self._make_app(
            Config(
                client=options,
                namespaces=NAMESPACES,
                api=ApiOptions(insecure=True),
                engine=EngineOptions(timeout=Seconds(TIMEOUT_S)),
            )
        )
        self._wire = LineWire(JsonCodec())
        self._codec = self._wire.codec
        ids = itertools.count(1)
        operations = self.app.node.operations
        self._sessions = self.app.node.sessions(
            SessionTraits(),
            lambda session: CentrifugeConnection(session, operations, self._codec),  # type: ignore[arg-type]
            lambda: f"client{next(ids)}",
        )
        self._owners: dict[ClientTransport, CheckingClient] = {}
        self._readable: deque[ClientTransport] = deque()
        self._is_reading = False
        self.failure: BaseException | None = None

    def _make_app(self, config: Config) -> App:
        """A server whose engine is the one of this world, behind the guard that every such engine has."""

        def make(needs: Needs) -> Engine:
            return self._engine

        with patch("beaconfire.server.engines.ENGINES", {"memory": EngineRow(make, "")}):
            return App(config)

    # Connections

    def add_client(self, rooms: Sequence[str]) -> CheckingClient:
        def after(seconds: float, act: Callable[[], None]) -> None:
            def act_and_send() -> None:
                act()
                self.send(client)

            self.timers.after(seconds, act_and_send)

        client = CheckingClient(f"c{len(self.clients)}", rooms, self.ledger, self.counts, self.rng, after)
        self.clients.append(client)
        return client

    def open(self, client: CheckingClient) -> None:
        transport = ClientTransport(self._on_readable)
        self._owners[transport] = client
        session = self._sessions.open_session(transport, self._wire, HANDSHAKE)
        client.client_id = ""
        client.on_open(session, transport)
        self.send(client)

    def drop(self, client: CheckingClient) -> None:
        """The network fails. The server learns it, but not by a closing handshake; messages on their way are lost."""
        session, transport = client.session, client.transport
        if session is None or transport is None:
            return
        self._owners.pop(transport, None)
        client.on_lost()
        session.on_closed()

    def send(self, client: CheckingClient) -> None:
        """Gives the commands of a client to the server, as one frame."""
        if client.outbox and client.session is not None:
            frame = b"\n".join(client.outbox)
            client.outbox.clear()
            client.session.on_data(frame, False)

    def _on_readable(self, transport: ClientTransport) -> None:
        self._readable.append(transport)
        if not self._is_reading:
            self._is_reading = True
            asyncio.get_running_loop().call_soon(self._read)

    def _read(self) -> None:
        """Clients read what has come, for one slice. What they answer is sent on the next turn."""
        began_s = time.thread_time()
        decoded: dict[bytes, list[Any]] = {}
        answering: list[CheckingClient] = []
        lost: list[tuple[CheckingClient, ClientTransport]] = []
        try:
            while self._readable and time.thread_time() - began_s < CLIENT_SLICE_S:
                self._read_one(self._readable.popleft(), decoded, answering, lost)
        except BaseException as failure:  # noqa: BLE001 - `check_alive` raises it in the test
            self.failure = self.failure or failure
        self._is_reading = bool(self._readable)
        loop = asyncio.get_running_loop()
        if self._is_reading:
            loop.call_soon(self._read)
        for client in answering:
            loop.call_soon(self.send, client)
        for client, transport in lost:
            loop.call_soon(self._on_server_closed, client, transport)
        self.meter.clients_s += time.thread_time() - began_s

    def _read_one(
        self,
        transport: ClientTransport,
        decoded: dict[bytes, list[Any]],
        answering: list[CheckingClient],
        lost: list[tuple[CheckingClient, ClientTransport]],
    ) -> None:
        client = self._owners.get(transport)
        frames, transport.frames = transport.frames, []
        if client is None:
            return  # the connection was lost
        for frame in frames:
            messages = decoded.get(frame)
            if messages is None:
                messages = decoded[frame] = [json.decode(line) for line in frame.splitlines()]
            for message in messages:
                client.receive(message)
        if client.outbox:
            answering.append(client)
        if transport.code is not None:
            self.counts[f"closed with {transport.code}"] += 1
            lost.append((client, transport))

    def _on_server_closed(self, client: CheckingClient, transport: ClientTransport) -> None:
        if client.transport is transport:
            self.drop(client)

    # The server API

    async def call_api(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Calls the server API like a backend, through the whole ASGI application."""
        body, sent = json.encode(params), []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": f"/api/{method}",
            "raw_path": f"/api/{method}".encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))],
            "client": ("127.0.0.1", 1),
            "scheme": "http",
            "http_version": "1.1",
        }
        await self.app.asgi(scope, receive, send)
        reply: dict[str, Any] = json.decode(b"".join(message.get("body", b"") for message in sent))
        return reply

    async def publish_by_api(self, client: CheckingClient, channel: str) -> None:
        """Publishes with an idempotency key, and repeats this until the server has acknowledged it."""
        data = client.next_data()
        params = {"channel": channel, "data": json.decode(data), "idempotency_key": data.decode()}
        while "error" in (reply := await self.call_api("publish", params)):
            assert reply["error"]["code"] == 100, reply
            self.counts["API publish refused"] += 1
            await asyncio.sleep(0.05 + 0.2 * self.rng.random())
        self.counts["published by API"] += 1
        client.acknowledged.append(data)

    # The end

    def is_settled(self) -> bool:
        """Every client has everything, and the node has nothing left to do in the engine."""
        work = self.app.node.work
        return not len(work.lanes) and not len(work.healing) and all(client.is_settled for client in self.clients)

    def check_alive(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def wait_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> float:
        """Returns the seconds until `condition` was true. Raises what a client has found wrong meanwhile."""
        began_s = time.monotonic()
        while not condition():
            self.check_alive()
            assert time.monotonic() - began_s < timeout_s, f"not after {timeout_s} s: {what}; {self._describe()}"
            await asyncio.sleep(0.02)
        self.check_alive()
        return time.monotonic() - began_s

    def _describe(self) -> str:
        """The clients that wait for something, at most three of them."""
        node = self.app.node
        unsettled = [
            (
                client.name,
                client.client_id,
                client.waiting,
                [
                    (channel, room.phase, room.offset, self.ledger.top(channel))
                    for channel, room in client.rooms.items()
                    if room.phase != "subscribed" or room.offset != self.ledger.top(channel)
                ],
            )
            for client in self.clients
            if not client.is_settled
        ]
        return (
            f"{len(unsettled)} clients: {unsettled[:3]}; lanes: {len(node.work.lanes)}, healing: "
            f"{len(node.work.healing)}, {dict(self.counts)}"
        )

    def metric(self, name: str) -> float:
        """The sum of all series of a metric."""
        lines = self.app.metrics.exposition().decode().splitlines()
        values = [line.rpartition(" ")[2] for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(map(float, values))

    def check_ledger(self) -> None:
        """Everything that was acknowledged is stored, and nothing is stored twice."""
        stored = self.ledger.all()
        assert len(set(stored)) == len(stored), "no publication is stored twice"
        acknowledged = {data for client in self.clients for data in client.acknowledged}
        assert acknowledged <= set(stored), f"acknowledged, but not stored: {acknowledged - set(stored)}"

    async def check_presence(self, with_announcements: bool = True) -> None:
        """Presence has exactly the clients that are subscribed. So have the joins and leaves that clients have heard,
        `with_announcements`: a lost link loses some of them."""
        subscribed: dict[str, set[str]] = {}
        for client in self.clients:
            for channel, room in client.rooms.items():
                if room.phase == "subscribed":
                    subscribed.setdefault(channel, set()).add(client.client_id)
        for channel, expected in subscribed.items():
            if not channel.startswith("quiet"):
                present = set(await self.store.memory.presence.members(channel))
                assert present == expected, f"{channel}: {present ^ expected}"
        for client in self.clients if with_announcements else ():
            for channel, room in client.rooms.items():
                wrong = [name for name, joined in room.members.items() if joined is not (name in subscribed[channel])]
                assert not wrong, f"{client.name} was told wrongly about {wrong} in {channel}"

    async def stop(self) -> None:
        """Ends all connections and the server. No task, no lane and no presence entry is left."""
        for client in self.clients:
            self.drop(client)
        node = self.app.node
        await self.wait_until(lambda: not len(node.work.lanes), 20, "all leaves are made")
        channels = {channel for client in self.clients for channel in client.rooms}
        for channel in channels:
            assert not await self.store.memory.presence.members(channel), f"nobody is left in {channel}"
        await self.app.stop()
        assert len(node.background) == 0
        assert len(node.registry) == 0
        assert not self.shared.link.attached
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "no task is left over"
