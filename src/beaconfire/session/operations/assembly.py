"""Makes the operations of a node, and connects them with each other."""

from __future__ import annotations

from beaconfire.base.loop import LoopTurns, Runtime
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespaces
from beaconfire.channels.service import ChannelService
from beaconfire.model.events import EventSink
from beaconfire.model.node import NodeIdentity
from beaconfire.policy.port import Policy
from beaconfire.session.membership import Memberships
from beaconfire.session.operations.connect import ConnectHandler
from beaconfire.session.operations.dispatch import Dispatcher
from beaconfire.session.operations.expiry import Expiry
from beaconfire.session.operations.lookup import ChannelLookup
from beaconfire.session.operations.messages import MessageHandler
from beaconfire.session.operations.prepare import Preparation
from beaconfire.session.operations.publish import PublishHandler
from beaconfire.session.operations.read import ReadHandler
from beaconfire.session.operations.recover_in_pieces import RecoveryInPieces
from beaconfire.session.operations.refresh import RefreshHandler
from beaconfire.session.operations.server_side import ServerSideSubscriptions
from beaconfire.session.operations.strategy import Strategies
from beaconfire.session.operations.subscribe import SubscribeHandler
from beaconfire.session.operations.upkeep import Upkeep
from beaconfire.session.options import ClientOptions
from beaconfire.session.registry import SessionRegistry
from beaconfire.session.session import Session


class Operations:
    """`dispatcher` and `upkeep` are for sessions, `preparation` and `expiry` for control messages of the cluster."""

    def __init__(
        self,
        *,
        policy: Policy,
        namespaces: Namespaces,
        access: Access,
        channels: ChannelService,
        memberships: Memberships,
        strategies: Strategies,
        registry: SessionRegistry[Session],
        node: NodeIdentity,
        options: ClientOptions,
        background: BackgroundTasks,
        turns: LoopTurns,
        runtime: Runtime,
        events: EventSink,
    ) -> None:
        clock = runtime.timers.clock
        lookup = ChannelLookup(namespaces, events)
        self.expiry = expiry = Expiry(options, clock)
        self.upkeep = Upkeep(channels, memberships, expiry, options, clock, runtime.random)
        recoveries = RecoveryInPieces(channels, self.upkeep, options, background, turns, events)
        self.preparation = preparation = Preparation(
            lookup, access, channels, memberships, strategies, recoveries, expiry, self.upkeep, options, events
        )
        server_side = ServerSideSubscriptions(
            policy, namespaces, lookup, preparation, expiry, options, turns, clock, events
        )
        self.dispatcher = Dispatcher(
            ConnectHandler(policy, server_side, preparation, expiry, registry, node, options, clock, events),
            SubscribeHandler(policy, namespaces, lookup, preparation, expiry),
            PublishHandler(policy, lookup, namespaces, channels),
            ReadHandler(access, lookup, channels, options, events),
            RefreshHandler(policy, expiry, node),
            MessageHandler(policy),
            namespaces,
            clock,
            events,
        )
