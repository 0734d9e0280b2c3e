"""A node without sockets, threads or real time, and clients of it.

`NodeHarness` runs a real node on the memory engine. Its clock moves only in `advance_time`, callbacks for the next turn
of the event loop run only in `run_scheduled`, and its engine answers at once unless `calls` holds a call back. A
`HarnessClient` is a session with a transport that records all frames. Only tests that hold calls back need a running
event loop: they run inside `asyncio.run`, and let other tasks continue with `settle`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import run_in_one_step
from beaconfire.base.timers import Timers
from beaconfire.base.units import Seconds
from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespaces
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions
from beaconfire.engines.memory import memory_engine
from beaconfire.engines.port import Engine
from beaconfire.model.identity import Identity
from beaconfire.model.node import NodeIdentity
from beaconfire.model.position import StreamPosition
from beaconfire.node.cluster import ControlMessage
from beaconfire.node.node import Node, NodeOptions
from beaconfire.policy.chain import PolicyChain
from beaconfire.policy.configured import ConfiguredPolicy
from beaconfire.policy.port import Policy
from beaconfire.policy.tickets import Tickets
from beaconfire.protocols.centrifuge.connection import CentrifugeConnection
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.unidirectional_codec import UnidirectionalCodec
from beaconfire.protocols.centrifuge.unidirectional_connection import UnidirectionalConnection
from beaconfire.protocols.plain.codec import PlainCodec
from beaconfire.protocols.plain.connection import PlainConnection
from beaconfire.protocols.port import Codec
from beaconfire.session.factory import SessionFactory
from beaconfire.session.operations.assembly import suspending_operations
from beaconfire.session.options import ClientOptions
from beaconfire.session.revocations import Revocation
from beaconfire.session.session import Session
from beaconfire.transports.traits import Pings, SessionTraits
from tests.fakes.engine import ControlledBroker, ControlledPresence, ManualCalls
from tests.fakes.events import EventRecorder
from tests.fakes.tokens import KnownTokens
from tests.fakes.transport import HANDSHAKE, LineWire, RecordingTransport

T = TypeVar("T")

OPEN = ChannelOptions(allow_subscribe_for_client=True, allow_publish_for_client=True)
"""Every named user may subscribe and publish. There is no history."""

RECOVERABLE = ChannelOptions(
    allow_subscribe_for_client=True,
    allow_publish_for_client=True,
    allow_history_for_client=True,
    history_size=10,
    history_ttl=Seconds(300),
    force_recovery=True,
)
"""Every named user may subscribe, publish and read history. History keeps ten publications, and every subscription is
recoverable."""

WITH_PRESENCE = ChannelOptions(
    allow_subscribe_for_client=True,
    allow_publish_for_client=True,
    allow_presence_for_client=True,
    presence=True,
    join_leave=True,
    force_push_join_leave=True,
)
"""Every subscriber is in presence, and receives the joins and leaves of the other subscribers."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that does not suspend."""
    return run_in_one_step(coroutine)


async def settle() -> None:
    """Lets every task continue until it waits for something that the test controls."""
    for _ in range(20):
        await asyncio.sleep(0)


class HarnessClient:
    """A session, and the messages that its client has received."""

    def __init__(
        self, harness: NodeHarness, factory: SessionFactory, codec: Codec, traits: SessionTraits | None = None
    ) -> None:
        self.harness = harness
        self.transport = RecordingTransport()
        self.session: Session = factory.open_session(self.transport, harness.wire(codec), HANDSHAKE, traits)
        self._ids = itertools.count(1)
        self._received = 0

    @property
    def id(self) -> str:
        return self.session.client

    @property
    def disconnect_code(self) -> int:
        """0 while the server has not disconnected the client."""
        return self.transport.closed[0] if self.transport.closed is not None else 0

    def receive(self) -> list[dict[str, Any]]:
        """The messages since the last call, after the scheduled callbacks have run."""
        self.harness.run_scheduled()
        lines = b"".join(self.transport.writes).splitlines()
        received, self._received = lines[self._received :], len(lines)
        return [json.loads(line) for line in received]

    def receive_pushes(self) -> list[dict[str, Any]]:
        """Like `receive`, without the envelope of the pushes. Every message must be a push."""
        return [message["push"] for message in self.receive()]

    def send_text(self, text: str) -> None:
        self.session.on_data(text.encode(), False)

    def send(self, method: str, /, **fields: Any) -> int:
        """Sends a command and returns its id."""
        number = next(self._ids)
        self.send_text(json.dumps({"id": number, method: fields}))
        return number

    def request_reply(self, method: str, /, **fields: Any) -> dict[str, Any]:
        """Sends a command and returns its reply. Pushes that came with the reply are dropped."""
        number = self.send(method, **fields)
        replies = [message for message in self.receive() if message.get("id") == number]
        assert len(replies) == 1, f"{method} {fields}: {replies}, closed: {self.transport.closed}"
        return replies[0]

    def request(self, method: str, /, **fields: Any) -> dict[str, Any]:
        """Sends a command that must succeed, and returns its result."""
        reply = self.request_reply(method, **fields)
        assert "error" not in reply, reply
        result: dict[str, Any] = reply[method]
        return result

    def request_code(self, method: str, /, **fields: Any) -> int:
        """Sends a command. Returns 0 for success, else the code of the error reply or of the disconnect."""
        number = self.send(method, **fields)
        replies = [message for message in self.receive() if message.get("id") == number]
        if self.disconnect_code:
            assert not replies, replies
            return self.disconnect_code
        assert len(replies) == 1, replies
        code: int = replies[0].get("error", {"code": 0})["code"]
        return code

    def send_plain(self, **message: Any) -> list[dict[str, Any]]:
        """Sends a message of the plain protocol, and returns the messages that the client receives then."""
        self.receive()
        self.send_text(json.dumps(message))
        return self.receive()

    def drop_connection(self) -> None:
        """Ends the connection without a closing handshake."""
        self.session.on_closed()


class NodeHarness:
    """A node with its clock, engine, tokens and clients. See the module."""

    def __init__(
        self,
        channel: ChannelOptions | None = None,
        namespaces: Mapping[str, ChannelOptions] | None = None,
        *,
        names: ChannelNameOptions | None = None,
        policy: Policy | None = None,
        make_tickets: Callable[[ManualClock, EventRecorder], Tickets] | None = None,
        peer: NodeHarness | None = None,
        single_node: bool = False,
        **client_options: Any,
    ) -> None:
        """`policy` is asked after the configured rules. `client_options` are fields of `ClientOptions`. Anonymous
        clients may connect unless these fields forbid it. A node with a `peer` has the same clock and the same presence
        store as the peer. `single_node` is that of the engine."""
        self.clock: ManualClock = peer.clock if peer is not None else ManualClock()
        self.timers: Timers = peer.timers if peer is not None else Timers(self.clock)
        self._name: str = f"{peer._name}peer-" if peer is not None else ""
        self.recorder = EventRecorder()
        self.calls = ManualCalls()
        self.tokens = KnownTokens(self.calls)
        self.scheduled: list[Callable[[], None]] = []
        self.random_value = 0.5
        self._epochs = itertools.count(1)
        self._ids = itertools.count(1)
        self._wires: dict[str, LineWire] = {}
        self.memory = memory_engine(self.clock, new_epoch=lambda: f"epoch{next(self._epochs)}")
        options = ClientOptions(**{"allow_anonymous": True, **client_options})
        self.namespaces = Namespaces(channel or OPEN, namespaces or {}, names or ChannelNameOptions(), 3600.0)
        access = Access(self.namespaces, options.insecure)
        self.policy = ConfiguredPolicy(self.tokens, self.tokens, self.namespaces, access, options)
        self._policies: Policy = self.policy if policy is None else PolicyChain((self.policy, policy))
        self.engine = Engine(
            "test",
            ControlledBroker(self.calls, self.memory.broker),
            ControlledPresence(self.calls, (peer or self).memory.presence),
            self.memory.control,
            suspends=False,  # see `_declare_suspending`
            single_node=single_node,
        )
        self.node = Node(
            NodeOptions(NodeIdentity(uid="uid", name="node", version="1.2.3"), options),
            self.engine,
            self.namespaces,
            self._policies,
            Runtime(self.scheduled.append, self.timers, self.timers, lambda: self.random_value),
            self.recorder,
            RecordingTransport.send_all,
            make_tickets(self.clock, self.recorder) if make_tickets is not None else None,
        )
        self.calls.when_changed = self._declare_suspending
        run(self.node.start())
        self._epochs = itertools.count(1)  # the node has created its internal stream
        self.calls.completed.clear()

    def _declare_suspending(self) -> None:
        """Commands run in one step while no call is held back, and in tasks while one is."""
        holding = self.calls.is_holding
        self.node.background.engine_suspends = holding
        self.node.operations.suspending = suspending_operations(self._policies, holding)
        self.node.operations.decisions.suspending = self._policies.suspending

    def wire(self, codec: Codec) -> LineWire:
        """The wire that all clients of a codec share, as in production."""
        return self._wires.setdefault(codec.name, LineWire(codec))

    # Clients

    def open_session(self, traits: SessionTraits | None = None) -> HarnessClient:
        """A client of the Centrifuge protocol that has sent nothing yet."""
        operations, codec = self.node.operations, JsonCodec()
        sessions = self.node.sessions(
            SessionTraits(), lambda session: CentrifugeConnection(session, operations, codec), self._new_id
        )
        return HarnessClient(self, sessions, codec, traits)

    def open_unidirectional_session(self, traits: SessionTraits | None = None) -> HarnessClient:
        """A client of the unidirectional protocol that has sent nothing yet."""
        operations, codec = self.node.operations, UnidirectionalCodec()
        sessions = self.node.sessions(
            traits or SessionTraits(Pings.UNANSWERED),
            lambda session: UnidirectionalConnection(session, operations, codec),
            self._new_id,
        )
        return HarnessClient(self, sessions, codec)

    def connect(self, user: str = "", *channels: str, **identity: Any) -> HarnessClient:
        """A client of this user that is subscribed to these channels, and has received everything so far.

        The client connects with a token that has the name of the user. `identity` are more fields of the token's
        `Identity`.
        """
        client = self.open_session()
        if user or identity:
            self.tokens.connections.known[user or "anonymous"] = Identity(user=user, **identity)
            client.request("connect", token=user or "anonymous")
        else:
            client.request("connect")
        for channel in channels:
            client.request("subscribe", channel=channel)
        client.receive()
        return client

    def open_plain_session(self, lobby: str | None = None) -> HarnessClient:
        """A client of the plain protocol that has sent nothing yet."""
        operations = self.node.operations
        sessions = self.node.sessions(
            SessionTraits(Pings.TRANSPORT, connect_is_final=False, may_stay_anonymous=lobby is not None),
            lambda session: PlainConnection(session, operations, lobby),
            self._new_id,
        )
        return HarnessClient(self, sessions, PlainCodec(lobby))

    def connect_plain(self, user: str) -> HarnessClient:
        """A client of the plain protocol after its handshake, with a token that has the name of the user."""
        self.tokens.connections.known[user] = Identity(user=user)
        client = self.open_plain_session()
        [welcome] = client.send_plain(type="handshake", token=user)
        assert welcome["type"] == "welcome", welcome
        return client

    def _new_id(self) -> str:
        return f"{self._name}client{next(self._ids)}"

    # Time and publications

    def run_scheduled(self) -> None:
        """Runs the scheduled callbacks, and those that they schedule, until none is left."""
        while self.scheduled:
            self.scheduled.pop(0)()

    def advance_time(self, seconds: float, step_s: float = 0.5) -> None:
        """Moves the clock in steps. After each step, timers fire and scheduled callbacks run."""
        end_s = self.clock.now_s() + seconds
        while self.clock.now_s() < end_s:
            self.clock.advance(min(step_s, end_s - self.clock.now_s()))
            self.timers.run_due()
            self.run_scheduled()

    def publish(self, channel: str, *data: object, **options: Any) -> StreamPosition:
        """Publishes like a backend, without running scheduled callbacks. Returns the last position."""
        position = StreamPosition(0, "")
        for datum in data:
            raw = datum if isinstance(datum, Raw) else Raw(json.dumps(datum).encode())
            namespace = self.namespaces.resolve(channel)
            position = run(self.node.channels.publish(channel, namespace, raw, **options)).position
        return position

    def send_control(self, message: ControlMessage) -> None:
        """Sends a control message like the server API."""
        run(self.node.cluster.send(message))

    def present_clients(self, channel: str) -> set[str]:
        """The ids of the clients in presence."""
        return set(run(self.memory.presence.members(channel)))

    def attached_channels(self) -> int:
        """The number of channels that the node is attached to at the broker, without the internal one."""
        return self.memory.broker.statistics().attached_channels - 1

    def revoke(self, **fields: Any) -> None:
        """Revokes tokens like the server API."""
        run(self.node.work.revocation_stream.revoke(self.revocation(**fields)))

    def revocation(self, **fields: Any) -> Revocation:
        """A revocation for an hour, of tokens that were issued until now."""
        now_unix_s = self.clock.unix_s()
        until_unix_s = 0.0 if "token_id" in fields else now_unix_s
        return Revocation(now_unix_s + 3600, **{"issued_until_unix_s": until_unix_s, **fields})
