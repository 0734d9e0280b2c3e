"""A whole server without sockets: a real node on the memory engine, the API before it, and clients that listen."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from beaconfire.api.methods import ApiMethods
from beaconfire.api.options import ApiOptions
from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import DisconnectCode
from beaconfire.base.loop import Runtime
from beaconfire.base.timers import Timers
from beaconfire.base.units import Seconds
from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespaces
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions
from beaconfire.engines.memory import memory_engine
from beaconfire.model.events import (
    ApiCallHandled,
    Event,
    InternalError,
    LimitHit,
)
from beaconfire.model.grants import SubscriptionClaims
from beaconfire.model.identity import Identity
from beaconfire.model.node import NodeIdentity
from beaconfire.node.node import Node, NodeOptions
from beaconfire.policy.configured import ConfiguredPolicy
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.port import Frame, Payload
from beaconfire.session.options import ClientOptions
from beaconfire.session.session import Session
from beaconfire.transports.socket_writes import send_all
from beaconfire.transports.traits import SessionTraits

ROOMY = ChannelOptions(
    presence=True, history_size=10, history_ttl=Seconds(300), force_recovery=True, allow_subscribe_for_client=True
)
NAMESPACES = {
    "fleeting": ChannelOptions(allow_subscribe_for_client=True),
    "strict": ChannelOptions(publication_data_format="json_object"),
    "open": ChannelOptions(publication_data_format="binary", history_size=10, history_ttl=Seconds(300)),
}


class Tokens:
    """Whatever is sent as a token is the user's name."""

    async def verify_connection(self, token: str) -> Identity:
        return Identity(user=token, info=msgspec.Raw(b'{"name":"%s"}' % token.encode()))

    async def verify_subscription(self, token: str) -> SubscriptionClaims:
        raise AssertionError("nobody sends one")


class Lines:
    """A wire whose frames are lines of JSON."""

    def __init__(self) -> None:
        self.codec = JsonCodec()

    def pack(self, payloads: Sequence[Payload]) -> Frame:
        return b"".join(payload.data + b"\n" for payload in payloads)


class Peer:
    """A transport that keeps what it was given."""

    name = "test"
    secret = ""
    writable = True
    direct = None
    buffered_bytes = 0

    def __init__(self) -> None:
        self.lines: list[Any] = []
        self.closed: DisconnectCode | None = None

    def write(self, data: Frame) -> None:
        self.lines += [json.loads(line) for line in data.splitlines()]

    def write_rest(self, data: Frame, sent: int) -> None:
        raise AssertionError("nobody sends past this transport")

    def ping(self) -> None: ...

    def close(self, code: DisconnectCode, reason: str) -> None:
        self.closed = code

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Client:
    """A connected client and what reached it."""

    def __init__(self, session: Session, peer: Peer, run_scheduled: Callable[[], None]) -> None:
        self.session = session
        self.peer = peer
        self._run_scheduled = run_scheduled

    @property
    def id(self) -> str:
        return self.session.client

    def send(self, **command: Any) -> None:
        self.session.on_data(json.dumps({"id": 7, **command}).encode(), False)

    def pushes(self, kind: str) -> list[dict[str, Any]]:
        """All pushes of one kind so far, in order, with their channel."""
        self._run_scheduled()
        pushes = [line["push"] for line in self.peer.lines if "push" in line]
        return [{"channel": push["channel"], **push[kind]} for push in pushes if kind in push]

    def data(self) -> list[Any]:
        return [publication["data"] for publication in self.pushes("pub")]


class Recorder:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


class World:
    """Use inside a running event loop; call `start` first."""

    def __init__(self, options: ApiOptions | None = None) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.recorder = Recorder()
        self._scheduled: list[Callable[[], None]] = []
        self._clients = 0
        engine = memory_engine(self.clock, new_epoch=lambda: "epoch")
        client_options = ClientOptions(history_max_publication_limit=1)
        self.engine = engine
        self.namespaces = Namespaces(ROOMY, NAMESPACES, ChannelNameOptions(max_length=40), 3600.0)
        access = Access(self.namespaces, insecure=False)
        self.node = Node(
            NodeOptions(NodeIdentity(uid="uid", name="node", version="1.2.3"), client_options),
            engine,
            self.namespaces,
            access,
            ConfiguredPolicy(Tokens(), Tokens(), self.namespaces, access, client_options),
            Runtime(self._scheduled.append, self.timers, self.timers, lambda: 0.5),
            self.recorder,
            send_all,
        )
        self.options = options or ApiOptions(keys=["right", "old"])
        self.api = ApiMethods(
            self.node.channels,
            self.namespaces,
            self.node.cluster,
            self.node.turns,
            self.clock,
            self.recorder,
            self.options,
        )
        self._arrivals = self.node.sessions(SessionTraits(), self._new_id)

    async def start(self) -> World:
        await self.node.start()
        return self

    def _new_id(self) -> str:
        self._clients += 1
        return f"client-{self._clients}"

    def run_scheduled(self) -> None:
        while self._scheduled:
            self._scheduled.pop(0)()

    def connect(self, user: str, *channels: str) -> Client:
        """A client of this user, subscribed to these channels."""
        peer = Peer()
        client = Client(self._arrivals.open_session(peer, Lines()), peer, self.run_scheduled)
        client.send(connect={"token": user})
        for channel in channels:
            client.send(subscribe={"channel": channel})
        self.run_scheduled()
        assert set(client.session.subscriptions) == set(channels), peer.lines
        return client

    async def call(self, method: str, /, **request: Any) -> Any:
        """The result as the JSON it becomes. Raises CommandError."""
        result = await self.api.call(method, json.dumps(request).encode())
        self.run_scheduled()
        return json.loads(msgspec.json.encode(result))

    def calls(self) -> list[tuple[str, int]]:
        """Method and error of every API call so far."""
        return [(e.method, e.error) for e in self.recorder.events if isinstance(e, ApiCallHandled)]

    def limits_hit(self) -> list[str]:
        return [event.limit for event in self.recorder.events if isinstance(event, LimitHit)]

    def internal_errors(self) -> list[str]:
        return [event.where for event in self.recorder.events if isinstance(event, InternalError)]
