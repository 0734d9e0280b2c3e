"""A server without sockets: a real node on the memory engine, its API, and connected clients."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from beaconfire.api.methods import ApiMethods
from beaconfire.api.options import ApiOptions
from beaconfire.base.clock import ManualClock
from beaconfire.base.loop import Runtime
from beaconfire.base.timers import Timers
from beaconfire.base.units import Seconds
from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespaces
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions
from beaconfire.engines.memory import memory_engine
from beaconfire.engines.migration import Migration
from beaconfire.engines.port import Engine
from beaconfire.model.events import (
    ApiCallHandled,
    InternalError,
)
from beaconfire.model.node import NodeIdentity
from beaconfire.node.node import Node, NodeOptions
from beaconfire.policy.configured import ConfiguredPolicy
from beaconfire.protocols.centrifuge.connection import CentrifugeConnection
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.session.options import ClientOptions
from beaconfire.session.session import Session
from beaconfire.testing import ManualCalls, control_calls
from beaconfire.transports.traits import SessionTraits
from tests.fakes.events import EventRecorder
from tests.fakes.migration import FakeMigration
from tests.fakes.tokens import UserNameTokens
from tests.fakes.transport import HANDSHAKE, LineWire, RecordingTransport

RECOVERABLE_WITH_PRESENCE = ChannelOptions(
    presence=True, history_size=10, history_ttl=Seconds(300), force_recovery=True, allow_subscribe_for_client=True
)
NAMESPACES = {
    "fleeting": ChannelOptions(allow_subscribe_for_client=True),
    "strict": ChannelOptions(publication_data_format="json_object"),
    "open": ChannelOptions(publication_data_format="binary", history_size=10, history_ttl=Seconds(300)),
}


class Client:
    """A connected client and the messages that it received."""

    def __init__(self, session: Session, transport: RecordingTransport, run_scheduled: Callable[[], None]) -> None:
        self.session = session
        self.transport = transport
        self._run_scheduled = run_scheduled

    @property
    def id(self) -> str:
        return self.session.client

    def send(self, **command: Any) -> None:
        self.session.on_data(json.dumps({"id": 7, **command}).encode(), False)

    def pushes(self, kind: str) -> list[dict[str, Any]]:
        """All pushes of one kind so far, in order, with their channels."""
        self._run_scheduled()
        pushes = [message["push"] for message in self.transport.messages() if "push" in message]
        return [{"channel": push["channel"], **push[kind]} for push in pushes if kind in push]

    def data(self) -> list[Any]:
        return [publication["data"] for publication in self.pushes("pub")]


class ApiHarness:
    """A server for tests. Create it inside a running event loop, and call `start` first."""

    def __init__(
        self,
        options: ApiOptions | None = None,
        calls: ManualCalls | None = None,
        keeps_order: bool = True,
        migration: Migration | None = None,
    ) -> None:
        """With `calls` the engine may suspend. `keeps_order` is that of this engine."""
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.recorder = EventRecorder(expects_errors=True)
        self._scheduled: list[Callable[[], None]] = []
        self._clients = 0
        memory = memory_engine(self.clock, new_epoch=lambda: "epoch")
        engine: Engine = memory
        if calls is not None:
            engine = replace(control_calls(engine, calls), suspends=True, keeps_order=keeps_order)
        client_options = ClientOptions(history_max_publication_limit=1)
        self.engine = memory
        self.namespaces = Namespaces(RECOVERABLE_WITH_PRESENCE, NAMESPACES, ChannelNameOptions(max_length=40), 3600.0)
        access = Access(self.namespaces, insecure=False)
        self.node = Node(
            NodeOptions(NodeIdentity(uid="uid", name="node", version="1.2.3"), client_options),
            engine,
            self.namespaces,
            ConfiguredPolicy(UserNameTokens(), UserNameTokens(), self.namespaces, access, client_options),
            Runtime(self._scheduled.append, self.timers, self.timers, lambda: 0.5),
            self.recorder,
            RecordingTransport.send_all,
        )
        operations = self.node.operations
        self.migration: Migration = FakeMigration() if migration is None else migration
        self.options = options or ApiOptions(keys=["right", "old"])
        self.api = ApiMethods(
            self.node.channels,
            self.namespaces,
            self.node.cluster,
            self.node.turns,
            self.clock,
            self.recorder,
            self.options,
            operations.publishing,
            self.node.work.revocation_stream,
            "publish" in operations.suspending,
            operations.publishes_overlap,
            migration=self.migration,
        )
        self._sessions = self.node.sessions(
            SessionTraits(), lambda session: CentrifugeConnection(session, operations, JsonCodec()), self._new_id
        )

    async def start(self) -> ApiHarness:
        await self.node.start()
        return self

    def _new_id(self) -> str:
        self._clients += 1
        return f"client-{self._clients}"

    def run_scheduled(self) -> None:
        while self._scheduled:
            self._scheduled.pop(0)()

    def connect(self, user: str, *channels: str) -> Client:
        """Connects a client of this user and subscribes it to these channels."""
        transport = RecordingTransport()
        session = self._sessions.open_session(transport, LineWire(JsonCodec()), HANDSHAKE)
        client = Client(session, transport, self.run_scheduled)
        client.send(connect={"token": user})
        for channel in channels:
            client.send(subscribe={"channel": channel})
        self.run_scheduled()
        assert set(client.session.subscriptions) == set(channels), transport.messages()
        return client

    async def call(self, method: str, /, **request: Any) -> Any:
        """The result as JSON. Raises CommandError."""
        result = await self.api.call(method, json.dumps(request).encode())
        self.run_scheduled()
        return json.loads(msgspec.json.encode(result))

    def calls(self) -> list[tuple[str, int]]:
        """Method and error of every API call so far."""
        return [(event.method, event.error) for event in self.recorder.of(ApiCallHandled)]

    def limits_hit(self) -> list[str]:
        return self.recorder.limits()

    def internal_errors(self) -> list[str]:
        return [event.where for event in self.recorder.of(InternalError)]
