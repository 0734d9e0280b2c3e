"""One running server and its state: the parts of a node, made from an engine, rules and a policy.

This module only makes the parts and connects them. Nothing keeps a reference to the node: each part gets the parts that
it uses. `server.app` hands the public parts to the server API, the transports and the drain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from beaconfire.base.clock import Clock
from beaconfire.base.errors import SHUTDOWN
from beaconfire.base.loop import LoopTurns, Runtime
from beaconfire.base.tasks import BackgroundTasks, start_task
from beaconfire.channels.namespaces import Namespaces
from beaconfire.channels.service import ChannelService
from beaconfire.channels.shared_reads import SharedReads
from beaconfire.delivery.hub import Hub
from beaconfire.delivery.outbox import Flusher, SendAll
from beaconfire.delivery.patches import Patches
from beaconfire.delivery.tags_filter import TagsFilters
from beaconfire.engines.port import Engine
from beaconfire.model.events import EventSink, NodeStatistics, WorkDropped, report_error
from beaconfire.model.node import NodeIdentity
from beaconfire.node.channel_work import ChannelWork
from beaconfire.node.cluster import Cluster
from beaconfire.node.forwarding import Forwarding
from beaconfire.node.local_sessions import LocalSessions
from beaconfire.policy.port import Policy
from beaconfire.policy.tickets import Tickets
from beaconfire.protocols.port import ProtocolConnection
from beaconfire.session.context import SessionContext
from beaconfire.session.endings import Endings
from beaconfire.session.factory import SessionFactory
from beaconfire.session.gap_notices import GapNotices
from beaconfire.session.operations.assembly import Operations
from beaconfire.session.operations.strategy import Strategies
from beaconfire.session.options import ClientOptions
from beaconfire.session.registry import SessionRegistry
from beaconfire.session.session import Session
from beaconfire.transports.traits import SessionTraits

STOP_TIMEOUT_S: Final = 5.0
"""How long `Node.stop` waits for background work by default."""


class NodeOptions(Struct, frozen=True):
    """`detach_delay_s` is how long the node stays attached to a channel without subscribers. `attach_timeout_s` is how
    long a subscriber waits for an attach, including the wait for a lost link."""

    identity: NodeIdentity
    client: ClientOptions
    detach_delay_s: float = 1.0
    attach_timeout_s: float = 3.0


class Node:
    """The parts of one node. `statistics` adds up their figures."""

    def __init__(
        self,
        options: NodeOptions,
        engine: Engine,
        namespaces: Namespaces,
        policy: Policy,
        runtime: Runtime,
        events: EventSink,
        send_all: SendAll,
        tickets: Tickets | None = None,
    ) -> None:
        """`send_all` writes frames to sockets. Without `tickets`, no client gets a resume ticket."""
        client, clock = options.client, runtime.timers.clock
        self._engine, self._timers, self._events = engine, runtime.timers, events
        self.background = BackgroundTasks(lambda error: report_error(events, "background", error), engine.suspends)
        self.turns = LoopTurns(runtime.schedule, clock.now_s)
        self.registry: SessionRegistry[Session] = SessionRegistry()
        self._flusher = Flusher(runtime.schedule, clock.now_s, send_all)
        self.hub = Hub(
            runtime.schedule, runtime.prompt_timers, events, int(client.queue_max_size), self._flusher, Patches()
        )
        self._reads = SharedReads(engine.broker, self.background, runtime, self.hub.announced)
        self.channels = ChannelService(engine.broker, engine.presence, self._reads if engine.suspends else None)
        self.work = ChannelWork(
            engine,
            self.hub,
            self.registry,
            namespaces,
            client,
            runtime,
            self.background,
            events,
            options.identity.uid,
            options.detach_delay_s,
            options.attach_timeout_s,
        )
        self.listener, self.memberships = self.work.listener, self.work.memberships
        self._context = SessionContext(
            client,
            runtime,
            events,
            self._flusher,
            self.hub,
            self.memberships,
            self.registry,
            self.background,
            GapNotices(client.gap_rate_limit, runtime.timers, runtime.random, events),
            self._make_endings(policy, client, runtime),
        )
        filters = TagsFilters(client.tags_filter_max_nodes, client.tags_filter_max_values)
        self.operations = Operations(
            policy=policy,
            namespaces=namespaces,
            channels=self.channels,
            memberships=self.memberships,
            strategies=Strategies(filters, self.hub.context, events),
            revocations=self.work.revocations,
            registry=self.registry,
            node=options.identity,
            options=client,
            engine=engine,
            background=self.background,
            turns=self.turns,
            runtime=runtime,
            events=events,
            user_connections=self.work.user_connections,
            tickets=tickets,
        )
        local_sessions = LocalSessions(
            self.registry,
            self.hub,
            namespaces,
            self.operations,
            self.background,
            runtime,
            events,
            options.identity,
            _uptime_s(clock),
            self._reads.forget,
        )
        self.forwarding = Forwarding(engine.control, options.identity.uid, runtime.timers, self.background, events)
        self.cluster = Cluster(engine.control, local_sessions, options.identity.uid, self.forwarding)

    def _make_endings(self, policy: Policy, client: ClientOptions, runtime: Runtime) -> Endings | None:
        if not policy.wants_endings:
            return None
        return Endings(policy, float(client.decision_timeout), runtime.timers, self.background, self._events)

    async def start(self) -> None:
        """Starts the broker and the control bus, and begins to learn which tokens are revoked.

        Announcements and control messages arrive from then on.
        """
        await self._engine.broker.start(self.listener)
        await self.cluster.start()
        self.work.revocation_stream.start()

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stops the control bus, ends the sessions that are left, waits for background work, and stops the broker.

        Waits at most `timeout_s` seconds for the work: commands that run, the removal of presence entries, and what the
        policy is told about endings. Then the rest is dropped and reported as `WorkDropped`. Nothing calls the engine
        afterwards.
        """
        await self.cluster.stop()
        self.work.stop()
        for session in list(self.registry.open):
            session.end(SHUTDOWN)
        if self._context.endings is not None:
            self._context.endings.flush()
        work = start_task(self._finish_work())
        deadline = self._timers.after(timeout_s, lambda: _cancel(work))
        await asyncio.wait([work])
        deadline.cancel()
        self.work.close()
        left = len(self.work.lanes) + len(self.background)
        if left:
            self._events.emit(WorkDropped("shutdown", left, f"the engine did not answer within {timeout_s:g} s"))
            self.background.cancel()
        await self._engine.broker.stop()

    async def _finish_work(self) -> None:
        await self.work.lanes.wait_until_empty()
        await self.background.wait_idle()

    def sessions(
        self, traits: SessionTraits, make_protocol: Callable[[Session], ProtocolConnection], new_id: Callable[[], str]
    ) -> SessionFactory:
        """The factory of one endpoint's sessions. `new_id` makes client ids, unique and impossible to guess."""
        return SessionFactory(self._context, self.operations.upkeep.run, traits, make_protocol, new_id)

    def statistics(self) -> NodeStatistics:
        hub, context, registry = self.hub.statistics(), self._context, self.registry
        return NodeStatistics(
            connections=len(registry.open),
            sessions=len(registry),
            users=registry.users,
            channels=hub.channels,
            subscriptions=hub.subscriptions,
            revocations=len(self.work.revocations),
            queue_bytes=sum(session.waiting_bytes for session in registry.open),
            messages_in_total=context.messages_in_total,
            bytes_in_total=context.bytes_in_total,
            messages_out_total=hub.delivered_total + context.replies_total,
            bytes_out_total=self._flusher.bytes_total,
            writes_total=self._flusher.writes_total,
            patches_total=hub.patches_total,
            filtered_total=hub.filtered_total,
            conflated_total=hub.conflated_total,
            reads_requested_total=self._reads.requests_total,
            reads_total=self._reads.reads_total,
        )


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


def _uptime_s(clock: Clock) -> Callable[[], int]:
    """Returns how many whole seconds have passed since this call."""
    started_s = clock.now_s()
    return lambda: int(clock.now_s() - started_s)
