"""One node of the simulation: the real node, on any engine, or on one that is slow, fails and loses its link."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from beaconfire.base.loop import Runtime
from beaconfire.base.timers import Timers
from beaconfire.base.units import Seconds, Size
from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespaces
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions
from beaconfire.delivery.subscription import Subscription
from beaconfire.engines.interceptor import InterceptedControlBus
from beaconfire.engines.port import Engine
from beaconfire.model.node import NodeIdentity
from beaconfire.node.node import Node, NodeOptions
from beaconfire.policy.chain import PolicyChain
from beaconfire.policy.configured import ConfiguredPolicy
from beaconfire.protocols.centrifuge.connection import CentrifugeConnection
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.session.options import ClientOptions
from beaconfire.session.session import Session
from beaconfire.testing import SharedStore
from beaconfire.testing.calls import ControlledCalls
from beaconfire.transports.traits import SessionTraits
from tests.fakes.engine import ControlledBroker, ControlledPresence
from tests.fakes.events import EventRecorder
from tests.fakes.tokens import UserNameTokens
from tests.fakes.transport import HANDSHAKE, LineWire
from tests.simulation.broker import StreamStore
from tests.simulation.handlers import TIMEOUT_S, RandomHandlers
from tests.simulation.steps import RandomSteps
from tests.simulation.subscriber import HISTORY_SIZE
from tests.simulation.transport import PartialWriteTransport


class Rules(Struct, frozen=True):
    """How the nodes of one simulation and their channels behave. `handlers` is None if no decision suspends."""

    rng: random.Random
    handlers: RandomHandlers | None
    recorder: EventRecorder
    has_members: bool
    keeps_presence: bool
    small_replies: bool
    attach_timeout_s: float
    interrupts_walks: bool
    traits: SessionTraits


class World(Struct, frozen=True):
    """The engine that the nodes of one simulation share. `store` has the streams, `shared` presence and control
    messages."""

    timers: Timers
    steps: RandomSteps
    store: StreamStore
    shared: SharedStore


class SessionsInOrder(set[Session]):
    """Sessions in the order of their client ids. The order of a set depends on memory addresses, and no seed determines
    those."""

    def __iter__(self) -> Iterator[Session]:
        return iter(sorted(super().__iter__(), key=lambda session: session.client))


class SimulatedNode:
    """A node on any engine, and its event loop."""

    def __init__(
        self, rules: Rules, uid: str, engine: Engine, turns: deque[Callable[[], None]], timers: Timers
    ) -> None:
        self.uid = uid
        self._rules = rules
        self.turns = turns
        self.interrupted = 0
        """Turns after which a walk was not over."""
        options = _client_options(rules)
        self.namespaces = Namespaces(_channel_options(rules), {}, ChannelNameOptions(), 1000.0)
        tokens = UserNameTokens()
        configured = ConfiguredPolicy(tokens, tokens, self.namespaces, Access(self.namespaces, False), options)
        self.node = Node(
            NodeOptions(
                NodeIdentity(uid, uid, "test"), options, detach_delay_s=1.0, attach_timeout_s=rules.attach_timeout_s
            ),
            engine,
            self.namespaces,
            configured if rules.handlers is None else PolicyChain((configured, rules.handlers)),
            Runtime(turns.append, timers, timers, rules.rng.random),
            rules.recorder,
            PartialWriteTransport.send_all,
        )
        self.node.registry.open = SessionsInOrder()
        if rules.interrupts_walks:
            fan_out = self.node.hub.fan_out
            fan_out.slice_s, fan_out.chunk = -1.0, 1
        self._codec = JsonCodec()
        self._wire = LineWire(self._codec)

    def open_session(self, transport: PartialWriteTransport, client: str) -> Session:
        """`client` is the client id."""
        sessions = self.node.sessions(
            self._rules.traits,
            lambda session: CentrifugeConnection(session, self.node.operations, self._codec),
            lambda: client,
        )
        return sessions.open_session(transport, self._wire, HANDSHAKE)

    @property
    def links_lost(self) -> int:
        """How often announcements may have been lost."""
        return 0

    @property
    def attached(self) -> set[str]:
        """The channels that the node has attached."""
        raise NotImplementedError

    def run_turn(self) -> None:
        self.turns.popleft()()
        self.interrupted += self.node.hub.fan_out.is_interrupted

    def deliver_all(self) -> None:
        """Everything that has reached this node reaches the subscriptions at once."""
        while self.turns:
            self.run_turn()

    @property
    def is_idle(self) -> bool:
        """No change of presence waits, and no announcement is on its way."""
        return not len(self.node.work.lanes) and not self.turns


class LossyNode(SimulatedNode):
    """A node with its link to the broker, and its link for presence and control messages."""

    def __init__(self, rules: Rules, world: World, uid: str) -> None:
        self.broker = world.store.connect()
        shared = world.shared.connect()
        self.link = shared.link
        engine = Engine(
            "simulation",
            ControlledBroker(world.steps, self.broker),
            ControlledPresence(world.steps, shared.presence),
            InterceptedControlBus(shared.control, ControlledCalls(world.steps)),
        )
        super().__init__(rules, uid, engine, deque(), world.timers)

    @property
    def links_lost(self) -> int:
        return self.broker.links_lost

    @property
    def attached(self) -> set[str]:
        return self.broker.attached

    # Events

    def deliver_all(self) -> None:
        """Everything that was announced reaches the subscriptions at once."""
        while self.broker.announcements:
            self.broker.announce_one()
        super().deliver_all()

    def lose_link(self, channels: Sequence[str] | None) -> None:
        """With the whole link, presence and control messages are lost as well."""
        if channels is None:
            self.link.lose()
        self.broker.lose_link(channels)

    def restore_link(self) -> None:
        if not self.link.state().up:
            self.link.restore()
        self.broker.restore_link()

    @property
    def is_idle(self) -> bool:
        return super().is_idle and not self.broker.announcements


def _channel_options(rules: Rules) -> ChannelOptions:
    return ChannelOptions(
        history_size=HISTORY_SIZE,
        history_ttl=Seconds(1000),
        force_recovery=True,
        allow_subscribe_for_client=True,
        allow_publish_for_client=True,
        allow_history_for_client=True,
        allow_presence_for_client=True,
        join_leave=rules.has_members,
        force_push_join_leave=True,
        presence=rules.has_members,
        allow_tags_filter=True,
        allowed_delta_types=["fossil"],
    )


def _client_options(rules: Rules) -> ClientOptions:
    return ClientOptions(
        ping_interval=Seconds(0),
        presence_update_interval=Seconds(1000 if rules.keeps_presence else 3),
        channel_position_check_delay=Seconds(6),
        stale_close_delay=Seconds(100000),
        decision_timeout=Seconds(TIMEOUT_S),
        reply_max_size=Size(1) if rules.small_replies else Size(512 * 1024),
    )


NodeT = TypeVar("NodeT", bound=SimulatedNode)


class Nodes(Generic[NodeT]):
    """The nodes of one simulation as one. `sessions` are all sessions ever, by client id."""

    def __init__(self, rng: random.Random, nodes: list[NodeT]) -> None:
        self._rng = rng
        self.all = nodes
        self.sessions: dict[str, Session] = {}
        self._numbers = itertools.count()

    def choose(self) -> NodeT:
        return self._rng.choice(self.all)

    def open_session(self, transport: PartialWriteTransport, name: str) -> tuple[Session, SimulatedNode]:
        """A session at one of the nodes."""
        node, client = self.choose(), f"{name}-{next(self._numbers)}"
        session = self.sessions[client] = node.open_session(transport, client)
        return session, node

    def subscriptions(self, channel: str) -> list[Subscription]:
        """The subscriptions of a channel on all nodes."""
        return [subscription for each in self.all for subscription in each.node.hub.subscribers(channel)]
