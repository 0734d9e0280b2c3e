"""What the node does in the engine for its channels: attachments, presence, healing and periodic work. It also learns
from the engine which tokens are revoked."""

from __future__ import annotations

from beaconfire.base.backoff import Backoff
from beaconfire.base.loop import Runtime, SharedSlice
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.channels.attachments import Attachments
from beaconfire.channels.lanes import Lanes
from beaconfire.channels.namespaces import Namespaces
from beaconfire.delivery.hub import Hub
from beaconfire.engines.port import Engine
from beaconfire.model.events import EventSink
from beaconfire.node.broker_listener import BrokerListener
from beaconfire.node.channel_upkeep import ChannelUpkeep, presence_ttl_s
from beaconfire.node.healing import Healing
from beaconfire.node.revocation_stream import RevocationStream
from beaconfire.node.revoked_sessions import RevokedSessions
from beaconfire.session.membership import Memberships
from beaconfire.session.options import ClientOptions
from beaconfire.session.registry import SessionRegistry
from beaconfire.session.revocations import Revocations
from beaconfire.session.session import Session
from beaconfire.session.user_connections import UserConnections


class ChannelWork:
    """Makes these parts of a node and connects them with each other and with the hub."""

    def __init__(
        self,
        engine: Engine,
        hub: Hub,
        registry: SessionRegistry[Session],
        namespaces: Namespaces,
        options: ClientOptions,
        runtime: Runtime,
        background: BackgroundTasks,
        events: EventSink,
        node: str,
        detach_delay_s: float,
        attach_timeout_s: float,
    ) -> None:
        """`node` is the uid of this node. The times are those of `NodeOptions`."""
        timers, backoff = runtime.timers, Backoff(runtime.random)
        self.attachments = Attachments(
            engine.broker, timers, background, backoff, detach_delay_s, attach_timeout_s, hub.has_subscribers
        )
        self.lanes = Lanes(engine.broker, engine.presence, timers, background, backoff, events, presence_ttl_s(options))
        self.healing = hub.healer = Healing(
            hub,
            self.attachments,
            engine.broker,
            namespaces,
            background,
            SharedSlice(runtime.schedule, timers.clock.now_s),
            timers,
            backoff,
            events,
            int(options.queue_max_size) // 2,
        )
        self.upkeep = ChannelUpkeep(engine, hub, self.lanes, self.healing, namespaces, options, runtime, background)
        self.memberships = Memberships(
            hub, self.attachments, self.lanes, self.upkeep.presence, self.upkeep.positions, events
        )
        self.user_connections: UserConnections | None = None
        if options.user_connection_limit and not engine.single_node:
            self.user_connections = UserConnections(
                options.user_connection_limit,
                node,
                engine.presence,
                engine.control,
                self.lanes,
                registry,
                namespaces,
                runtime,
                background,
                events,
                float(options.presence_update_interval),
                presence_ttl_s(options),
            )
            registry.on_removed = self.user_connections.remove
        self.revocations = Revocations(timers.clock, events)
        self.revocation_stream = RevocationStream(
            namespaces.internal("revocations"),
            engine,
            self.revocations,
            RevokedSessions(registry, self.revocations, runtime, events).enforce,
            background,
            timers,
            backoff,
            events,
        )
        self.listener = BrokerListener(
            hub, self.attachments, self.healing, self.upkeep.presence, self.revocation_stream
        )

    def stop(self) -> None:
        """No healing and no periodic work starts any more. Changes of presence go on."""
        self.upkeep.stop()
        if self.user_connections is not None:
            self.user_connections.stop()
        self.healing.stop()
        self.revocation_stream.stop()

    def close(self) -> None:
        """Drops what is left: nothing of this starts a call of the engine any more."""
        self.lanes.close()
        self.attachments.close()
