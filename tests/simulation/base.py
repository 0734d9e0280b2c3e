"""What every simulation of nodes has in common: the clients, the random choice of the next event, and the end.

The simulation picks the next event again and again: a step of a pending call or decision, a turn of a node's event
loop, an action of a client, a control message, the passing of time, or what the engine can do. The clients check what
they receive: see `SimulatedClient`. The simulation checks what the nodes and the engine keep: see `checks`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any, Generic, TypeAlias

from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import CommandError
from beaconfire.engines.port import PresenceStore
from beaconfire.model.events import InternalError
from beaconfire.node.cluster import (
    ControlMessage,
    DisconnectSessions,
    Selector,
    SubscribeSessions,
    UnsubscribeSessions,
)
from beaconfire.session.session import Session, SessionPhase
from beaconfire.transports.traits import SessionTraits
from tests.fakes.events import EventRecorder
from tests.simulation import checks
from tests.simulation.broken_guarantee import BrokenGuarantee
from tests.simulation.broker import CHANNELS, StreamStore
from tests.simulation.client import DISCONNECTED_BY_CONTROL, SimulatedClient
from tests.simulation.handlers import RandomHandlers
from tests.simulation.node import Nodes, NodeT, Rules
from tests.simulation.steps import RandomSteps
from tests.simulation.subscriber import Excuses
from tests.unit.patching import chained_text

STOP_TIMEOUT_S = 1000.0
"""Much longer than all work takes that a node must finish."""

Choices: TypeAlias = list[tuple[float, Callable[[], None]]]
"""What can happen next, with weights."""


class BaseSimulation(Generic[NodeT]):
    """Nodes and clients. A subclass sets `nodes` and `presence`, adds clients, and says what its engine does."""

    nodes: Nodes[NodeT]
    presence: PresenceStore
    """What is present, read in one step."""

    def __init__(
        self,
        rng: random.Random,
        clock: ManualClock,
        store: StreamStore,
        steps: RandomSteps,
        loses_announcements: bool,
        keeps_presence: bool | None = None,
    ) -> None:
        """`steps` are those of the engine's calls. Chance decides about None."""
        self.rng = rng
        self.clock = clock
        self.store = store
        self.steps = steps
        self.loses_announcements = loses_announcements
        """Links and announcements get lost. Otherwise every join and leave reaches the subscribers."""
        self.handlers = RandomHandlers(rng, clock.now_s, self._has_ended) if rng.random() < 0.5 else None
        self.has_members = rng.random() < 0.5
        """Channels have presence, and clients see joins and leaves. These calls make all commands slower."""
        self.is_presence_kept = rng.random() < 0.5 if keeps_presence is None else keeps_presence
        """No entry expires, so presence is right whenever no call is on its way."""
        self.recorder = EventRecorder(expects_errors=True)
        self.rules = Rules(
            rng=rng,
            handlers=self.handlers,
            recorder=self.recorder,
            has_members=self.has_members,
            keeps_presence=self.is_presence_kept,
            # In half of the simulations a reply has room for one publication. History keeps up to six.
            small_replies=rng.random() < 0.5,
            attach_timeout_s=3.0 if self.loses_announcements else 1000.0,
            # In half of the simulations every walk is interrupted after each subscription.
            interrupts_walks=rng.random() < 0.5,
            traits=SessionTraits(connect_is_final=rng.random() < 0.5),
        )
        self.excuses = Excuses()
        self.clients: list[SimulatedClient] = []
        self.published = 0
        self.quiet_moments = 0
        self.disconnecting: list[Session] = []
        """Sessions that a control message will end, if it is not lost."""

    def _add_clients(self, count: int) -> None:
        self.excuses.failures = self.steps.failures > 0
        self.excuses.lost_announcements = self.loses_announcements
        self.excuses.refusals = self.handlers is not None
        self.excuses.control = self.rng.random() < 0.5
        self.clients = [
            SimulatedClient(f"client{index}", self.rng, self.store, self.excuses, self.nodes.open_session)
            for index in range(count)
        ]

    def _has_ended(self, client: str) -> bool:
        return self.nodes.sessions[client].has_ended()

    async def run(self, steps: int) -> None:
        await self._start()
        for client in self.clients:
            client.connect()
        for _ in range(steps):
            self._run_event()
            for _ in range(self.rng.randrange(3)):
                await asyncio.sleep(0)
            if self.rng.random() < 0.05:
                await self._check_if_quiet()
        await self._settle()
        await self._stop()

    async def _start(self) -> None:
        for each in self.nodes.all:
            await each.node.start()

    # What the engine does

    def _add_calls(self, choices: Choices) -> None:
        """What is on its way."""

    def _add_choices(self, each: NodeT, choices: Choices) -> None:
        """What can happen at one node."""

    def _add_losses(self, choices: Choices) -> None:
        """What seldom happens."""

    def _advance_time(self, seconds: float = 0.0) -> None:
        """Lets this much time pass, 0: a random time."""
        raise NotImplementedError

    def _restore(self) -> None:
        """Ends all faults."""

    async def _deliver_pending(self) -> None:
        """Completes what calls and decisions have caused."""

    @property
    def is_engine_idle(self) -> bool:
        """Nothing is on its way."""
        raise NotImplementedError

    def _check_detached(self) -> None:
        """Checks at the end, without sessions, that every channel is detached."""
        checks.check_detached(self)

    async def _check_settled(self) -> None:
        """Checks what the engine keeps when everything is complete."""

    async def _stop_engine(self) -> None:
        """Ends what the nodes have used, after they have stopped."""

    # Events

    def _run_event(self) -> None:
        rng = self.rng
        choices: Choices = [
            (4, self._publish),
            (8, self._run_client),
            (1, self._advance_time),
            (2, self._deliver_all),
        ]
        if self.steps.waiting:
            choices.append((16, self.steps.take_one))
        if self.handlers is not None and self.handlers.steps.waiting:
            choices.append((8, self.handlers.steps.take_one))
        self._add_calls(choices)
        if self.excuses.control and rng.random() < 0.05:
            choices.append((9, self._send_control_message))
        for each in self.nodes.all:
            self._add_choices(each, choices)
        self._add_losses(choices)
        weights = [weight for weight, _ in choices]
        rng.choices(choices, weights)[0][1]()

    def _deliver_all(self) -> None:
        for each in self.nodes.all:
            each.deliver_all()

    def _publish(self) -> None:
        self.published += 1
        channel = self.rng.choice(CHANNELS)
        data = Raw(json.dumps(chained_text(self.published)).encode())
        tags = {"kind": self.rng.choice(("unwanted", "wanted", "other"))}
        each = self.nodes.choose()
        each.node.background.start(self._publish_one(each, channel, data, tags, self.rng.random() < 0.8))

    async def _publish_one(self, each: NodeT, channel: str, data: Raw, tags: dict[str, str], delta: bool) -> None:
        namespace = each.namespaces.resolve(channel)
        try:
            data = await each.node.operations.publishing.permit_for_api(channel, namespace, data, tags)
        except CommandError:  # refused, or not decided in time
            assert self.handlers is not None, "nobody refuses"
            return
        await each.node.channels.publish(channel, namespace, data, tags=tags, delta=delta)

    def _send_control_message(self) -> None:
        client, channel = self.rng.choice(self.clients), self.rng.choice(CHANNELS)
        who = Selector(user=client.name)
        message: ControlMessage = self.rng.choice(
            (
                SubscribeSessions(who, channel),
                SubscribeSessions(who, channel),
                UnsubscribeSessions(who, self.rng.choice(("", channel))),
                DisconnectSessions(who, DISCONNECTED_BY_CONTROL, "moved"),
            )
        )
        session = client.session
        is_connected = session is not None and session.phase is SessionPhase.CONNECTED
        if session is not None and is_connected and isinstance(message, DisconnectSessions):
            self.disconnecting.append(session)
        self._send(self.nodes.choose(), message)

    def _send(self, each: NodeT, message: ControlMessage) -> None:
        each.node.background.start(each.node.cluster.send(message))

    def _run_client(self) -> None:
        client = self.rng.choice(self.clients)
        if client.session is None:
            self._connect(client)
            return
        action = self.rng.random()
        channel = self.rng.choice(CHANNELS)
        state = client.channels[channel]
        if action < 0.45:
            client.read(self.rng.randrange(1, 6))
        elif action < 0.53:
            client.drop_connection()
        elif action < 0.58:
            client.toggle_writable()
        elif not client.may_send:
            return
        elif action < 0.68:
            self._run_command(client, channel)
        elif state.is_free:
            client.subscribe(channel)
        elif state.is_live and action < 0.76:
            client.unsubscribe(channel)
        elif state.is_live and not state.is_asked and action < 0.84:
            client.resubscribe(channel)

    def _connect(self, client: SimulatedClient) -> None:
        client.connect()

    def _run_command(self, client: SimulatedClient, channel: str) -> None:
        command = self.rng.choice(("publish", "history", "presence", "rpc"))
        self.published += 1
        if command == "publish":
            client.publish(channel, self.published)
        elif command == "history":
            client.ask_history(channel)
        elif command == "presence" and self.has_members:
            client.ask_presence(channel)
        elif command == "rpc" and self.handlers is not None:
            client.call(self.published)

    # Checks

    async def _check_if_quiet(self) -> None:
        """Checks decisions, and presence if no call is on its way and no change waits."""
        for _ in range(5):
            await asyncio.sleep(0)
        if self.handlers is not None:
            self.handlers.check()
        lanes = any(len(each.node.work.lanes) for each in self.nodes.all)
        if self.is_presence_kept and not self.steps.waiting and not lanes:
            self.quiet_moments += 1
            await checks.check_presence(self)

    def check_errors(self) -> None:
        for event in self.recorder.of(InternalError):
            raise BrokenGuarantee(event.error)

    # The end

    async def _settle(self) -> None:
        """Completes all pending events and connects clients again, until every client has every publication."""
        self.steps.failures = 0.0
        if self.handlers is not None:
            self.handlers.refusals = self.handlers.hangs = 0.0
        self._restore()
        for _ in range(200):
            await self.complete_pending()
            self.check_errors()
            busy = [self._continue_client(client) for client in self.clients]
            is_idle = all(each.is_idle for each in self.nodes.all) and self.is_engine_idle
            if not any(busy) and is_idle and await self._is_complete():
                break
            # The node compares positions from time to time. Two comparisons must find even a silent loss.
            await self._pass_time()
        else:
            checks.report_unsettled(self)
        checks.check_members(self)
        checks.check_control(self)
        checks.check_refused(self)
        await checks.check_presence(self)
        await self._check_settled()

    async def complete_pending(self) -> None:
        """Lets all calls, decisions and announcements come to their end, as far as they do not wait for the time."""
        waiting = [self.steps.waiting]
        if self.handlers is not None:
            waiting.append(self.handlers.steps.waiting)
        for _ in range(3):
            await asyncio.sleep(0)
        while any(waiting):
            if self.steps.waiting:
                self.steps.take_one()
            if self.handlers is not None and self.handlers.steps.waiting:
                self.handlers.steps.take_one()
            await asyncio.sleep(0)
        await self._deliver_pending()

    def _continue_client(self, client: SimulatedClient) -> bool:
        """Lets the client read everything and subscribe to everything. False if there is nothing to do."""
        if client.session is not None and not client.transport.writable:
            client.toggle_writable()
        client.read(1000)
        if client.session is None:
            self._connect(client)
            return True
        if client.may_send:
            for channel, state in client.channels.items():
                if state.is_free:
                    client.subscribe(channel)
        return bool(client.waiting) or not all(state.is_live for state in client.channels.values())

    async def _is_complete(self) -> bool:
        if not all(state.is_complete() for client in self.clients for state in client.channels.values()):
            return False
        return self.is_presence_kept or await checks.is_presence_right(self)

    async def _stop(self) -> None:
        """Ends the clients or the nodes first, and checks that nothing is left."""
        if self.rng.random() < 0.5:
            for client in self.clients:
                if client.session is not None:
                    client.drop_connection()
            self.steps.failures = 0.3 if self.excuses.failures else 0.0
            for _ in range(4):
                await self._pass_time()
            self.steps.failures = 0.0
            for _ in range(6):
                await self._pass_time()
            self._check_detached()
        stops = [asyncio.ensure_future(each.node.stop(STOP_TIMEOUT_S)) for each in self.nodes.all]
        for _ in range(8):
            await self._pass_time()
            if all(stop.done() for stop in stops):
                break
        await self._stop_engine()
        for _ in range(3):
            await asyncio.sleep(0)
        self.check_errors()
        await checks.check_nothing_left(self)

    async def _pass_time(self) -> None:
        await self.complete_pending()
        self._advance_time(3.5)


AnySimulation: TypeAlias = BaseSimulation[Any]
