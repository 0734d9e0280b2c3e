"""The operations of a session, as every protocol calls them, and how they are made and connected with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from beaconfire.base.errors import SERVER_ERROR, UNSUBSCRIBED_BY_CLIENT, CommandError, Disconnect
from beaconfire.base.loop import LoopTurns, Runtime
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.channels.namespaces import Namespaces
from beaconfire.channels.service import ChannelService
from beaconfire.engines.port import Engine
from beaconfire.model.events import EventSink
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.node import NodeIdentity
from beaconfire.model.requests import SubscriptionRequest
from beaconfire.policy.port import DECISIONS, Policy
from beaconfire.policy.tickets import Tickets
from beaconfire.session.membership import Memberships
from beaconfire.session.operations.connect import Connecting
from beaconfire.session.operations.decisions import Decisions
from beaconfire.session.operations.execution import CommandExecution
from beaconfire.session.operations.expiry import Expiry
from beaconfire.session.operations.lookup import ChannelLookup
from beaconfire.session.operations.prepare import Preparation
from beaconfire.session.operations.publish import Publishing
from beaconfire.session.operations.read import Reading
from beaconfire.session.operations.recover_in_pieces import RecoveryInPieces
from beaconfire.session.operations.refresh import Refreshing
from beaconfire.session.operations.resume import Resuming
from beaconfire.session.operations.server_side import ServerSideSubscriptions, is_small
from beaconfire.session.operations.strategy import Strategies
from beaconfire.session.operations.subscribe import Subscribing
from beaconfire.session.operations.upkeep import Upkeep
from beaconfire.session.options import ClientOptions
from beaconfire.session.registry import SessionRegistry
from beaconfire.session.revocations import Revocations
from beaconfire.session.session import Session
from beaconfire.session.user_connections import UserConnections

_SUBSCRIBE: Final = ("subscribe", "history", "presence")
_ASKED: Final[Mapping[str, Sequence[str]]] = {
    **{decision: (decision,) for decision in DECISIONS},
    "subscribe": _SUBSCRIBE,
    "connect": ("connect", *_SUBSCRIBE),
}
"""The decisions that each operation may ask for."""

_IMMEDIATE: Final = frozenset(("publish", "history"))
"""The operations that only use the stream of their channel (see `Engine.immediate`)."""


def suspending_operations(policy: Policy, engine_suspends: bool) -> frozenset[str]:
    """The names for `Operations.suspending`."""
    return frozenset(
        operation for operation, asked in _ASKED.items() if engine_suspends or not policy.suspending.isdisjoint(asked)
    )


class Operations:
    """What the protocols of a node do for their clients, by topic.

    `connecting`, `subscribing`, `publishing`, `reading`, `refreshing` and `decisions` (for rpc and messages) raise
    CommandError and Disconnect. `execution` turns both into replies and disconnects. `preparation` and `expiry` are
    also for control messages of the cluster, and `upkeep` for the keepalive of sessions.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        namespaces: Namespaces,
        channels: ChannelService,
        memberships: Memberships,
        strategies: Strategies,
        revocations: Revocations,
        registry: SessionRegistry[Session],
        node: NodeIdentity,
        options: ClientOptions,
        engine: Engine,
        background: BackgroundTasks,
        turns: LoopTurns,
        runtime: Runtime,
        events: EventSink,
        user_connections: UserConnections | None = None,
        tickets: Tickets | None = None,
    ) -> None:
        """Without `tickets`, each resume ticket is ignored, and no client gets one."""
        clock = runtime.timers.clock
        lookup = ChannelLookup(namespaces, events)
        self.node = node
        self.options = options
        self.clock = clock
        self.background = background
        self.suspending = suspending_operations(policy, background.engine_suspends)
        """The operations that may suspend, named by their main decisions (see `policy.port.DECISIONS`)."""
        suspending_decisions = suspending_operations(policy, engine_suspends=False)
        self._immediate = _IMMEDIATE - suspending_decisions
        self._immediate_durabilities = engine.immediate
        self.publishes_overlap = engine.keeps_order and "publish" not in suspending_decisions
        """Whether publishes of one session need not wait for each other, because they keep their order anyway."""
        self._namespaces = namespaces
        self.execution = CommandExecution(namespaces, clock, events)
        self.decisions = decisions = Decisions(
            policy, revocations, float(options.decision_timeout), runtime.timers, events
        )
        self.expiry = expiry = Expiry(options, clock)
        self.upkeep = Upkeep(expiry, clock)
        recoveries = RecoveryInPieces(channels, options, background, turns, runtime, events)
        self.preparation = preparation = Preparation(
            lookup, decisions, revocations, channels, memberships, strategies, recoveries, expiry, options, events
        )
        server_side = ServerSideSubscriptions(
            decisions, namespaces, lookup, preparation, expiry, options, turns, clock, events
        )
        resuming = Resuming(tickets, bool(policy.ticket_version), revocations, events)
        self.connecting = Connecting(
            decisions, server_side, preparation, expiry, registry, options, events, resuming, user_connections
        )
        self.subscribing = Subscribing(decisions, namespaces, lookup, preparation, expiry, resuming)
        self.publishing = Publishing(decisions, lookup, namespaces, channels)
        self.reading = Reading(decisions, lookup, channels, options, events)
        self.refreshing = Refreshing(decisions, expiry, resuming)

    def is_immediate(self, operation: str, channel: str) -> bool:
        """Whether an operation of `suspending` never suspends on this channel."""
        return operation in self._immediate and self._namespaces.durability(channel) in self._immediate_durabilities

    def connect_may_suspend(self, channels: int, token: str) -> bool:
        """Whether a connect may suspend, with a request that has so many channels and this token.

        A connect with many channels lets other work of the event loop run in between.
        """
        return "connect" in self.suspending or not is_small(channels, token)

    def unsubscribe(self, session: Session, channel: str) -> None:
        """Ends the subscription of a client to the channel, if there is one. Nothing of it is sent afterwards."""
        subscription = session.subscriptions.get(channel)
        if subscription is not None:
            session.unsubscribe(subscription, UNSUBSCRIBED_BY_CLIENT)

    def enter_for_protocol(self, session: Session, channel: str) -> None:
        """Subscribes a session to a channel of its protocol, without permission, presence, position, join and leave.

        If that fails, the session ends with a code after which the client connects again.
        """
        self.background.start_engine_work(self._enter_for_protocol(session, channel))

    async def _enter_for_protocol(self, session: Session, channel: str) -> None:
        namespace, grant = self._namespaces.resolve(channel), SubscriptionGrant()
        try:
            prepared = await self.preparation.prepare(
                session, SubscriptionRequest(channel), namespace, grant, server_side=True, of_protocol=True
            )
            self.preparation.enter(session, [prepared])
        except CommandError as error:
            session.end(SERVER_ERROR, f"{channel!r}: {error.detail}")
        except Disconnect as disconnect:
            session.end_with(disconnect)
        except Exception:
            session.end(SERVER_ERROR, f"the session could not be subscribed to {channel!r}")
            raise
