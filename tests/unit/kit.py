"""A whole node without sockets, threads or time: what the unit tests of the core stand on.

A `World` is a real node on the memory engine. Its clock moves when told (`pass_time`), what is scheduled for the next
turn of the event loop is collected and run when told (`turn`), and its engine answers at once unless `world.stops`
holds a call back. A `Client` is a session with a transport that keeps what it was given. Nothing here needs a running
event loop, except tests that hold calls back: those run inside `asyncio.run` and let others go on with `settle`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import DisconnectCode
from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import run_eagerly
from beaconfire.base.timers import Timers
from beaconfire.base.units import Seconds
from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespace, Namespaces
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions
from beaconfire.delivery.outbox import Flusher, Outbox, Writable
from beaconfire.delivery.strategy import DeliveryStrategy
from beaconfire.delivery.subscription import Subscription, SubscriptionOptions
from beaconfire.engines.memory import MemoryEngine, memory_engine
from beaconfire.engines.port import (
    BrokerEvents,
    Engine,
    HistoryOptions,
    HistoryPage,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.engines.port import PresenceStats as Stats
from beaconfire.model.events import Event, InternalError, LimitHit
from beaconfire.model.grants import SubscriptionClaims, SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.node import NodeIdentity
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo
from beaconfire.node.cluster import ControlMessage
from beaconfire.node.node import Node, NodeOptions
from beaconfire.policy.configured import ConfiguredPolicy
from beaconfire.policy.tokens import TokenInvalid
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.plain import PlainCodec
from beaconfire.protocols.port import (
    Codec,
    Frame,
    Payload,
    Wire,
)
from beaconfire.session.factory import SessionFactory
from beaconfire.session.options import ClientOptions
from beaconfire.session.session import Session
from beaconfire.transports.traits import SessionTraits

T = TypeVar("T")
EventT = TypeVar("EventT", bound=Event)

OPEN = ChannelOptions(allow_subscribe_for_client=True, allow_publish_for_client=True)
"""Anyone with a name may subscribe and publish; nothing is kept."""

RECOVERABLE = ChannelOptions(
    allow_subscribe_for_client=True,
    allow_publish_for_client=True,
    allow_history_for_client=True,
    history_size=10,
    history_ttl=Seconds(300),
    force_recovery=True,
)
"""Anyone with a name may do everything; ten publications are kept, and every subscription can recover them."""


VISIBLE = ChannelOptions(
    allow_subscribe_for_client=True,
    allow_publish_for_client=True,
    allow_presence_for_client=True,
    presence=True,
    join_leave=True,
    force_push_join_leave=True,
)
"""Everybody sees everybody else."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that does not wait for anything."""
    result: list[T] = []

    async def keep() -> None:
        result.append(await coroutine)

    assert run_eagerly(keep()) is None, "it waits for something: use asyncio.run"
    return result[0]


async def settle() -> None:
    """Lets every task go on until it waits for something that will not come by itself."""
    for _ in range(20):
        await asyncio.sleep(0)


class Stops:
    """Calls to the engine and to the verifier that are held back or fail, by the name of their method."""

    def __init__(self) -> None:
        self._gates: dict[str, asyncio.Event] = {}
        self._failures: dict[str, Exception] = {}
        self.passed: list[str] = []
        """Every call that was let through, in order: `attach news`."""

    def hold(self, method: str) -> Callable[[], None]:
        """From now on calls wait. What is returned lets those through that came before another `hold`."""
        self._gates[method] = asyncio.Event()
        return self._gates[method].set

    def release(self, method: str) -> None:
        """Lets those waiting and all later ones through."""
        self._gates.pop(method).set()

    def fail_next(self, method: str, error: Exception) -> None:
        self._failures[method] = error

    async def at(self, method: str, subject: str) -> None:
        gate = self._gates.get(method)
        if gate is not None:
            await gate.wait()
        failure = self._failures.pop(method, None)
        if failure is not None:
            raise failure
        self.passed.append(f"{method} {subject}")


class SlowBroker:
    """The memory broker behind stops. Calls take effect when they are let through."""

    def __init__(self, stops: Stops, inner: MemoryEngine) -> None:
        self._stops = stops
        self._inner = inner.broker

    async def start(self, events: BrokerEvents) -> None:
        await self._inner.start(events)

    async def stop(self) -> None:
        await self._inner.stop()

    async def attach(self, channel: str) -> None:
        await self._stops.at("attach", channel)
        await self._inner.attach(channel)

    async def detach(self, channel: str) -> None:
        await self._stops.at("detach", channel)
        await self._inner.detach(channel)

    async def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishOutcome:
        await self._stops.at("publish", channel)
        return await self._inner.publish(channel, data, options, info, tags)

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        await self._stops.at("publish_join", f"{channel} {info.client}")
        await self._inner.publish_join(channel, info)

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        await self._stops.at("publish_leave", f"{channel} {info.client}")
        await self._inner.publish_leave(channel, info)

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        await self._stops.at("history", channel)
        return await self._inner.history(channel, options, limit, since, reverse)

    async def remove_history(self, channel: str) -> None:
        await self._inner.remove_history(channel)


class SlowPresence:
    """The memory presence store behind stops."""

    def __init__(self, stops: Stops, inner: MemoryEngine) -> None:
        self._stops = stops
        self._inner = inner.presence

    async def add(self, channel: str, info: ClientInfo, ttl_s: float) -> None:
        await self._stops.at("presence_add", f"{channel} {info.client}")
        await self._inner.add(channel, info, ttl_s)

    async def remove(self, channel: str, client: str) -> None:
        await self._stops.at("presence_remove", f"{channel} {client}")
        await self._inner.remove(channel, client)

    async def members(self, channel: str) -> dict[str, ClientInfo]:
        return await self._inner.members(channel)

    async def stats(self, channel: str) -> Stats:
        return await self._inner.stats(channel)


class Answers(Generic[T]):
    """What is answered for each token: a value, or an error to raise."""

    def __init__(self) -> None:
        self.known: dict[str, T | Exception] = {}

    def find(self, token: str) -> T:
        answer = self.known.get(token)
        if answer is None:
            raise TokenInvalid(f"no such token: {token}")
        if isinstance(answer, Exception):
            raise answer
        return answer


class Tokens:
    """A verifier that knows the tokens it was told of."""

    def __init__(self, stops: Stops) -> None:
        self._stops = stops
        self.connections: Answers[Identity] = Answers()
        self.subscriptions: Answers[SubscriptionClaims] = Answers()

    async def verify_connection(self, token: str) -> Identity:
        await self._stops.at("verify", token)
        return self.connections.find(token)

    async def verify_subscription(self, token: str) -> SubscriptionClaims:
        await self._stops.at("verify", token)
        return self.subscriptions.find(token)

    def let_subscribe(self, token: str, user: str, channel: str, client: str = "", **grant: Any) -> str:
        """Makes `token` a subscription token of `user` for `channel`."""
        self.subscriptions.known[token] = SubscriptionClaims(user, channel, client, SubscriptionGrant(**grant))
        return token


class Recorder:
    """An event sink that keeps everything. Internal errors fail the test at once, unless they are expected."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.expects_errors = False

    def emit(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, InternalError) and not self.expects_errors:
            raise AssertionError(event.error)

    def of(self, kind: type[EventT]) -> list[EventT]:
        return [event for event in self.events if isinstance(event, kind)]

    def limits(self) -> list[str]:
        return [event.limit for event in self.of(LimitHit)]


class Lines:
    """A wire whose frames are lines of JSON. It counts what fan-out should do once only."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.packed = 0

    def pack(self, payloads: Sequence[Payload]) -> Frame:
        self.packed += 1
        return b"".join(payload.data + b"\n" for payload in payloads)


class Wiretap:
    """A transport that keeps what it was given."""

    name = "test"
    secret = ""
    direct: Any = None
    """Itself, if frames may be sent past it."""

    def __init__(self) -> None:
        self.writable = True
        self.buffered_bytes = 0
        self.writes: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.pings = 0
        self.reading: list[str] = []
        self.when_closed: Callable[[], None] = lambda: None
        """What the peer does when it is told to go."""

    def write(self, data: Frame) -> None:
        assert self.writable, "written to a transport that takes nothing"
        assert self.closed is None, "written after the end"
        assert data, "an empty write"
        self.writes.append(data)

    def write_rest(self, data: Frame, sent: int) -> None:
        raise AssertionError("nobody takes only a part")

    @staticmethod
    def send_all(taps: Sequence[Writable], frames: Sequence[Frame]) -> list[int]:
        """Takes the place of the sockets: everybody takes everything."""
        for tap, data in zip(taps, frames, strict=True):
            assert isinstance(tap, Wiretap)
            assert tap.direct is tap, "sent past a transport that wants to write"
            tap.write(data)
        return list(map(len, frames))

    def ping(self) -> None:
        self.pings += 1

    def close(self, code: DisconnectCode, reason: str) -> None:
        assert self.closed is None, "closed twice"
        self.closed = (code.code, reason)
        self.when_closed()

    def pause_reading(self) -> None:
        self.reading.append("pause")

    def resume_reading(self) -> None:
        self.reading.append("resume")


class Listener:
    """A subscriber without a session: its outbox is written on the turns of `flusher`."""

    def __init__(self, client: str, flusher: Flusher, wire: Wire) -> None:
        self.client = client
        self.wire = wire
        self.transport = Wiretap()
        self.outbox = Outbox(self.transport, flusher, 10_000, lambda: None)
        self.gaps: list[str] = []
        self.react: Callable[[Subscription], None] = lambda subscription: None
        """What it does about a gap."""
        self.undeliverable = 0

    def on_gap(self, subscription: Subscription, reason: str) -> None:
        self.gaps.append(reason)
        self.react(subscription)

    def on_undeliverable(self, subscription: Subscription) -> None:
        self.undeliverable += 1

    def subscription(
        self, channel: str = "news", strategy: DeliveryStrategy | None = None, **options: bool
    ) -> Subscription:
        """One that is catching up."""
        return Subscription(
            channel,
            Namespace("", OPEN, 1.0),
            self,
            SubscriptionOptions(**options),
            SubscriptionGrant(),
            ClientInfo("", self.client),
            strategy,
        )

    def messages(self) -> list[Any]:
        """Everything that was written, decoded."""
        return [json.loads(line) for line in b"".join(self.transport.writes).splitlines()]

    def data(self) -> list[Any]:
        """The data of every publication that was written."""
        return [message["push"]["pub"]["data"] for message in self.messages()]


class Client:
    """A session and what reached its client."""

    def __init__(self, world: World, arrivals: SessionFactory, codec: Codec, traits: SessionTraits | None) -> None:
        self.world = world
        self.transport = Wiretap()
        self.session: Session = arrivals.open_session(self.transport, world.wire(codec), traits)
        self._ids = itertools.count(1)
        self._read = 0

    @property
    def id(self) -> str:
        return self.session.client

    @property
    def ended(self) -> int:
        """The disconnect code, 0 while the session lives."""
        return self.transport.closed[0] if self.transport.closed is not None else 0

    def take(self) -> list[dict[str, Any]]:
        """Everything that arrived since the last time, after a turn."""
        self.world.turn()
        lines = b"".join(self.transport.writes).splitlines()
        fresh, self._read = lines[self._read :], len(lines)
        return [json.loads(line) for line in fresh]

    def take_pushes(self) -> list[dict[str, Any]]:
        """As `take`, with the envelope of pushes taken off; nothing but pushes may be among it."""
        return [message["push"] for message in self.take()]

    def send_text(self, text: str) -> None:
        self.session.on_data(text.encode(), False)

    def send(self, method: str, /, **fields: Any) -> int:
        """Sends a command and returns its id."""
        number = next(self._ids)
        self.send_text(json.dumps({"id": number, method: fields}))
        return number

    def reply(self, method: str, /, **fields: Any) -> dict[str, Any]:
        """Sends a command and returns the one reply to it; pushes that came with it are dropped."""
        number = self.send(method, **fields)
        replies = [message for message in self.take() if message.get("id") == number]
        assert len(replies) == 1, f"{method} {fields}: {replies}, ended: {self.transport.closed}"
        return replies[0]

    def ask(self, method: str, /, **fields: Any) -> dict[str, Any]:
        """The result of a command that must succeed."""
        reply = self.reply(method, **fields)
        assert "error" not in reply, reply
        result: dict[str, Any] = reply[method]
        return result

    def outcome(self, method: str, /, **fields: Any) -> int:
        """0 for success, else the code of the error reply or of the disconnect."""
        number = self.send(method, **fields)
        replies = [message for message in self.take() if message.get("id") == number]
        if self.ended:
            assert not replies, replies
            return self.ended
        assert len(replies) == 1, replies
        code: int = replies[0].get("error", {"code": 0})["code"]
        return code

    def say(self, **message: Any) -> list[dict[str, Any]]:
        """Sends a message of the plain protocol and returns what came."""
        self.take()
        self.send_text(json.dumps(message))
        return self.take()

    def cut(self) -> None:
        """The connection is gone without a word."""
        self.session.on_closed()


class World:
    """A node with its clock, engine, tokens and clients. See the module."""

    def __init__(
        self,
        channel: ChannelOptions | None = None,
        namespaces: Mapping[str, ChannelOptions] | None = None,
        *,
        names: ChannelNameOptions | None = None,
        **client_options: Any,
    ) -> None:
        """`client_options` are those of `ClientOptions`; anonymous clients are let in unless they say otherwise."""
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.recorder = Recorder()
        self.stops = Stops()
        self.tokens = Tokens(self.stops)
        self.scheduled: list[Callable[[], None]] = []
        self.chance = 0.5
        self._epochs = itertools.count(1)
        self._names = itertools.count(1)
        self._wires: dict[str, Lines] = {}
        self.memory = memory_engine(self.clock, new_epoch=lambda: f"epoch{next(self._epochs)}")
        options = ClientOptions(**{"allow_anonymous": True, **client_options})
        self.namespaces = Namespaces(channel or OPEN, namespaces or {}, names or ChannelNameOptions(), 3600.0)
        access = Access(self.namespaces, options.insecure)
        self.policy = ConfiguredPolicy(self.tokens, self.tokens, self.namespaces, access, options)
        self.engine = Engine(
            "test", SlowBroker(self.stops, self.memory), SlowPresence(self.stops, self.memory), self.memory.control
        )
        self.node = Node(
            NodeOptions(NodeIdentity(uid="uid", name="node", version="1.2.3"), options),
            self.engine,
            self.namespaces,
            access,
            self.policy,
            Runtime(self.scheduled.append, self.timers, self.timers, lambda: self.chance),
            self.recorder,
            Wiretap.send_all,
        )
        run(self.node.start())

    def wire(self, codec: Codec) -> Lines:
        """One for all clients of a codec, as in production."""
        return self._wires.setdefault(codec.name, Lines(codec))

    # Clients

    def open_session(self, traits: SessionTraits | None = None) -> Client:
        """A native client that has said nothing yet."""
        return Client(self, self.node.sessions(SessionTraits(), self._new_id), JsonCodec(), traits)

    def connect(self, user: str = "", *channels: str, **identity: Any) -> Client:
        """A native client of this user who has subscribed to these channels, and has read everything so far.

        It connects with a token named after the user; `identity` is what else the token says.
        """
        client = self.open_session()
        if user or identity:
            self.tokens.connections.known[user or "nobody"] = Identity(user=user, **identity)
            client.ask("connect", token=user or "nobody")
        else:
            client.ask("connect")
        for channel in channels:
            client.ask("subscribe", channel=channel)
        client.take()
        return client

    def plain(self, lobby: str | None = None) -> Client:
        """A client of the plain protocol that has said nothing yet."""
        traits = SessionTraits(connect_first=False, app_pings=False, lobby=lobby)
        return Client(self, self.node.sessions(traits, self._new_id), PlainCodec(lobby), None)

    def connect_plain(self, user: str) -> Client:
        """A client of the plain protocol that has shaken hands with a token named after the user."""
        self.tokens.connections.known[user] = Identity(user=user)
        client = self.plain()
        [welcome] = client.say(type="handshake", token=user)
        assert welcome["type"] == "welcome", welcome
        return client

    def _new_id(self) -> str:
        return f"client{next(self._names)}"

    # What happens

    def turn(self) -> None:
        """Runs what is scheduled, and what that schedules, until nothing is."""
        while self.scheduled:
            self.scheduled.pop(0)()

    def pass_time(self, seconds: float, step_s: float = 0.5) -> None:
        """Moves the clock in steps, firing timers and taking turns."""
        end_s = self.clock.now_s() + seconds
        while self.clock.now_s() < end_s:
            self.clock.advance(min(step_s, end_s - self.clock.now_s()))
            self.timers.run_due()
            self.turn()

    def publish(self, channel: str, *data: object, **options: Any) -> StreamPosition:
        """As a backend would; does not take a turn. Returns the last position."""
        position = StreamPosition(0, "")
        for datum in data:
            raw = datum if isinstance(datum, Raw) else Raw(json.dumps(datum).encode())
            namespace = self.namespaces.resolve(channel)
            position = run(self.node.channels.publish(channel, namespace, raw, **options)).position
        return position

    def tell(self, message: ControlMessage) -> None:
        """As the server API would."""
        run(self.node.cluster.send(message))

    def presence(self, channel: str) -> set[str]:
        """The client ids that are present."""
        return set(run(self.memory.presence.members(channel)))

    def attached(self) -> int:
        """How many channels the broker announces to this node."""
        return self.memory.broker.statistics().attached_channels
