"""A node, a lossy broker and clients, whose events happen in a random order that one seed determines.

The node with its sessions, hub, attachments and operations is the real one. The broker is slow and can lose its link
and its streams. Some clients use patches, a filter, conflation, or several of these. The simulation picks the next
event again and again: a step of a pending broker call, an announcement, a turn of the event loop, an action of a
client, a lost connection, or the passing of time. The clients check what they receive: see `SimulatedClient`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import deque
from collections.abc import Callable

from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.loop import Runtime
from beaconfire.base.timers import Timers
from beaconfire.base.units import Seconds, Size
from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespace, Namespaces
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions
from beaconfire.engines.memory import memory_engine
from beaconfire.engines.port import Engine
from beaconfire.model.events import InternalError
from beaconfire.model.node import NodeIdentity
from beaconfire.node.node import Node, NodeOptions
from beaconfire.policy.configured import ConfiguredPolicy
from beaconfire.protocols.centrifuge.connection import CentrifugeConnection
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.session.options import ClientOptions
from beaconfire.session.session import Session
from beaconfire.transports.traits import SessionTraits
from tests.fakes.engine import ControlledBroker, ControlledPresence
from tests.fakes.events import EventRecorder
from tests.fakes.tokens import UserNameTokens
from tests.fakes.transport import HANDSHAKE, LineWire
from tests.simulation.broken_guarantee import BrokenGuarantee
from tests.simulation.broker import CHANNELS, LossyBroker, RandomSteps
from tests.simulation.client import HISTORY_SIZE, SimulatedClient
from tests.simulation.transport import PartialWriteTransport
from tests.unit.patching import chained_text


class Simulation:
    """Node, broker and clients, and the random choice of the next event."""

    def __init__(self, seed: int, clients: int = 3, loses_announcements: bool | None = None) -> None:
        self.rng = random.Random(seed)
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        # In half of the simulations some offsets are left out.
        self.broker = LossyBroker(self.rng if self.rng.random() < 0.5 else None)
        self.steps = RandomSteps(self.rng, self.rng.choice((0.0, 0.0, 0.05)))
        self.loses_announcements = self.rng.random() < 0.6 if loses_announcements is None else loses_announcements
        """Links and announcements get lost. Otherwise every join and leave reaches the subscribers."""
        has_members = self.rng.random() < 0.5
        """Channels have presence, and clients see joins and leaves. These calls make all commands slower."""
        self.is_presence_kept = self.rng.random() < 0.5
        """No entry expires, so presence is right whenever no call is on its way."""
        self.quiet_moments = 0
        memory = memory_engine(self.clock)
        self._presence = memory.presence
        options = ChannelOptions(
            history_size=HISTORY_SIZE,
            history_ttl=Seconds(1000),
            force_recovery=True,
            allow_subscribe_for_client=True,
            allow_publish_for_client=True,
            join_leave=has_members,
            force_push_join_leave=True,
            presence=has_members,
            allow_tags_filter=True,
            allowed_delta_types=["fossil"],
        )
        client_options = ClientOptions(
            ping_interval=Seconds(0),
            presence_update_interval=Seconds(1000 if self.is_presence_kept else 3),
            channel_position_check_delay=Seconds(6),
            stale_close_delay=Seconds(100000),
            # In half of the simulations a reply has room for one publication. History keeps up to six.
            reply_max_size=self.rng.choice((Size(1), Size(512 * 1024))),
        )
        channels = Namespaces(options, {}, ChannelNameOptions(), 1000.0)
        access = Access(channels, False)
        tokens = UserNameTokens()
        self.turns: deque[Callable[[], None]] = deque()
        self.recorder = EventRecorder(expects_errors=True)
        self.namespaces = channels
        self.node = Node(
            NodeOptions(
                NodeIdentity("node", "node", "test"),
                client_options,
                detach_delay_s=1.0,
                attach_timeout_s=3.0 if self.loses_announcements else 1000.0,
            ),
            Engine(
                "simulation",
                ControlledBroker(self.steps, self.broker),
                ControlledPresence(self.steps, memory.presence),
                memory.control,
            ),
            channels,
            ConfiguredPolicy(tokens, tokens, channels, access, client_options),
            Runtime(self.turns.append, self.timers, self.timers, self.rng.random),
            self.recorder,
            PartialWriteTransport.send_all,
        )
        # In half of the simulations every walk is interrupted after each subscription.
        fan_out = self.node.hub.fan_out
        fan_out.slice_s, fan_out.chunk = self.rng.choice(((-1.0, 1), (fan_out.slice_s, fan_out.chunk)))
        self.interrupted = 0
        """Turns after which a walk was not over."""
        self.namespace: Namespace = channels.resolve("a")
        self._codec = JsonCodec()
        self._wire = LineWire(self._codec)
        self._numbers = itertools.count()
        self.clients = [
            SimulatedClient(f"client{index}", self.rng, self.broker, self._open_session) for index in range(clients)
        ]
        for client in self.clients:
            client.expects_gaps = self.steps.failures > 0
            client.expects_lost_announcements = self.loses_announcements
        self.published = 0

    def _open_session(self, transport: PartialWriteTransport, name: str) -> Session:
        number = next(self._numbers)
        sessions = self.node.sessions(
            SessionTraits(),
            lambda session: CentrifugeConnection(session, self.node.operations, self._codec),
            lambda: f"{name}-{number}",
        )
        return sessions.open_session(transport, self._wire, HANDSHAKE)

    async def run(self, steps: int) -> None:
        await self.node.start()
        for client in self.clients:
            client.connect()
        for _ in range(steps):
            self._run_event()
            for _ in range(self.rng.randrange(3)):
                await asyncio.sleep(0)
            if self.is_presence_kept and self.rng.random() < 0.1:
                await self._check_presence_if_quiet()
        await self._settle()
        for client in self.clients:
            self._check_complete(client)

    def _run_event(self) -> None:
        choices: list[tuple[int, Callable[[], None]]] = [
            (4, self._publish),
            (6, self._run_client),
            (1, self._advance_time),
            (2, self._announce_all),
        ]
        if self.steps.waiting:
            choices.append((16, self.steps.take_one))
        if self.broker.announcements:
            choices.append((5, self.broker.announce_one))
        if self.turns:
            choices.append((12 if self.node.hub.fan_out.is_interrupted else 5, self._run_turn))
        if self.broker.down:
            choices.append((2, self.broker.restore_link))
        elif self.loses_announcements and self.rng.random() < 0.03:
            channels = self.rng.choice((None, [self.rng.choice(CHANNELS)]))
            choices.append((4, lambda: self.broker.lose_link(channels)))
        if self.rng.random() < 0.01:
            choices.append((4, lambda: self.broker.lose_stream(self.rng.choice(CHANNELS))))
        if self.loses_announcements and self.rng.random() < 0.005:
            choices.append((4, self._lose_announcements))
        weights = [weight for weight, _ in choices]
        self.rng.choices(choices, weights)[0][1]()

    def _announce_all(self) -> None:
        """Everything that was published reaches the subscriptions at once."""
        while self.broker.announcements:
            self.broker.announce_one()
        while self.turns:
            self._run_turn()

    def _lose_announcements(self) -> None:
        """As `LossyBroker.lose_link`, but the node only learns which channels have a gap."""
        for client in self.clients:
            client.expects_gaps = True
        self.broker.announcements.clear()
        for channel in CHANNELS:
            self.node.hub.mark_gap(channel, "announcements were lost")

    async def _check_presence_if_quiet(self) -> None:
        """Compares presence with the subscriptions if no call is on its way and no change waits."""
        for _ in range(5):
            await asyncio.sleep(0)
        if not self.steps.waiting and not len(self.node.work.lanes):
            self.quiet_moments += 1
            for channel in CHANNELS:
                await self._check_presence(channel)

    async def _is_presence_right(self) -> bool:
        try:
            for channel in CHANNELS:
                await self._check_presence(channel)
        except BrokenGuarantee:
            return False
        return True

    async def _check_presence(self, channel: str) -> None:
        """Subscriptions that are being made may be present already."""
        present = set(await self._presence.members(channel))
        subscriptions = self.node.hub.subscribers(channel)
        expected = {
            subscription.client
            for subscription in subscriptions
            if subscription.replied and subscription.options.presence
        }
        if not expected <= present <= {subscription.client for subscription in subscriptions}:
            raise BrokenGuarantee(f"present in {channel}: {present}, subscribed: {expected}")

    def _run_turn(self) -> None:
        self.turns.popleft()()
        self.interrupted += self.node.hub.fan_out.is_interrupted

    def _advance_time(self) -> None:
        self.clock.advance(self.rng.choice((0.3, 1.1, 4.0)))
        self.timers.run_due()

    def _publish(self) -> None:
        self.published += 1
        channel = self.rng.choice(CHANNELS)
        data = Raw(json.dumps(chained_text(self.published)).encode())
        tags = {"kind": self.rng.choice(("unwanted", "wanted", "other"))}
        self.node.background.start(self._publish_one(channel, data, tags, self.rng.random() < 0.8))

    async def _publish_one(self, channel: str, data: Raw, tags: dict[str, str], delta: bool) -> None:
        await self.node.channels.publish(channel, self.namespace, data, tags=tags, delta=delta)

    def _run_client(self) -> None:
        client = self.rng.choice(self.clients)
        if client.session is None:
            client.connect()
            return
        action = self.rng.random()
        channel = self.rng.choice(CHANNELS)
        if action < 0.45:
            client.read(self.rng.randrange(1, 6))
        elif action < 0.53:
            client.drop_connection()
        elif action < 0.58:
            client.toggle_writable()
        elif client.channels[channel].phase == "unsubscribed" and not client.channels[channel].unsubscribing:
            client.subscribe(channel)
        elif client.channels[channel].phase == "subscribed" and action < 0.75:
            client.unsubscribe(channel)

    async def _settle(self) -> None:
        """Completes all pending events and connects clients again, until every client has every publication."""
        self.steps.failures = 0.0
        if self.broker.down:
            self.broker.restore_link()
        for _ in range(200):
            for _ in range(3):
                await asyncio.sleep(0)
            while self.steps.waiting:
                self.steps.take_one()
                await asyncio.sleep(0)
            self._announce_all()
            for event in self.recorder.of(InternalError):
                raise BrokenGuarantee(event.error)
            busy = False
            for client in self.clients:
                if client.session is not None and not client.transport.writable:
                    client.toggle_writable()
                client.read(1000)
                if client.session is None:
                    client.connect()
                    busy = True
                for channel, state in client.channels.items():
                    if state.phase == "unsubscribed" and not state.unsubscribing:
                        client.subscribe(channel)
                    busy = busy or state.phase != "subscribed"
            busy = busy or bool(len(self.node.work.lanes) or self.broker.announcements)
            if not busy and self._all_complete() and (self.is_presence_kept or await self._is_presence_right()):
                break
            # The node compares positions from time to time. Two comparisons must find even a silent loss.
            self.clock.advance(3.5)
            self.timers.run_due()
        else:
            self._report_unsettled()
        for channel in CHANNELS:
            await self._check_presence(channel)
        for client in self.clients:
            self._check_members(client)

    def _check_members(self, client: SimulatedClient) -> None:
        """Checks that the last announcement of each client tells whether the client is subscribed."""
        for channel, state in client.channels.items():
            subscribed = {subscription.client for subscription in self.node.hub.subscribers(channel)}
            wrong = {name for name, joined in state.members.items() if joined is not (name in subscribed)}
            if wrong and not client.expects_lost_announcements:
                raise BrokenGuarantee(f"{client.name}: {channel} has {subscribed}, announced: {state.members}")

    def _report_unsettled(self) -> None:
        clients = {
            client.name: {
                channel: (state.phase, state.unsubscribing, state.position)
                for channel, state in client.channels.items()
            }
            for client in self.clients
        }
        tops = {channel: self.broker.position(channel) for channel in CHANNELS}
        raise BrokenGuarantee(f"the simulation does not settle: {clients}, broker: {tops}")

    def _all_complete(self) -> bool:
        return all(self._is_complete(client, channel) for client in self.clients for channel in client.channels)

    def _is_complete(self, client: SimulatedClient, channel: str) -> bool:
        position, top = client.channels[channel].position, self.broker.position(channel)
        if position is None or position.epoch != top.epoch:
            return False
        return position.offset <= top.offset and not client.count_missing(channel, top.offset)

    def _check_complete(self, client: SimulatedClient) -> None:
        for channel, state in client.channels.items():
            if not self._is_complete(client, channel):
                raise BrokenGuarantee(
                    f"{client.name} ended at {state.position} in {channel}: {self.broker.position(channel)}"
                )
