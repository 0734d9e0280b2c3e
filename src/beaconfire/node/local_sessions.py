"""Applies control messages and surveys to the sessions of this node."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

from msgspec import structs

from beaconfire.base.backoff import Backoff
from beaconfire.base.errors import (
    CONNECTION_EXPIRED,
    UNSUBSCRIBED_BY_SERVER,
    CommandError,
    Disconnect,
    DisconnectCode,
)
from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timer
from beaconfire.channels.namespaces import Namespaces
from beaconfire.delivery.hub import Hub
from beaconfire.model.events import EventSink, WorkDropped
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.node import NodeIdentity
from beaconfire.model.pushes import MessagePush, PublicationPush, RefreshPush, SubscribePush
from beaconfire.model.requests import SubscriptionRequest
from beaconfire.model.results import SubscriptionStart
from beaconfire.node.cluster import (
    ConnectionInfo,
    ConnectionsSurvey,
    ControlMessage,
    DisconnectSessions,
    MessageSessions,
    NodeInfo,
    RefreshSessions,
    Selector,
    SubscribeSessions,
    UnsubscribeSessions,
    payload,
)
from beaconfire.policy.port import Via
from beaconfire.session.operations.assembly import Operations
from beaconfire.session.registry import SessionRegistry
from beaconfire.session.session import Session, SessionPhase

SUBSCRIBE_TRIES_MAX: Final = 6
"""How often a subscribe of the server API is tried: for some six seconds, if the engine fails at once."""


class LocalSessions:
    """Implements `cluster.LocalControl` for the sessions of a node."""

    def __init__(
        self,
        registry: SessionRegistry[Session],
        hub: Hub,
        namespaces: Namespaces,
        operations: Operations,
        background: BackgroundTasks,
        runtime: Runtime,
        events: EventSink,
        node: NodeIdentity,
        uptime_s: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._hub = hub
        self._namespaces = namespaces
        self._operations = operations
        self._background = background
        self._timers = runtime.timers
        self._backoff = Backoff(runtime.random)
        self._events = events
        self._repeated: dict[tuple[str, str], Timer] = {}
        """Subscribes that have failed and are repeated, by client and channel."""
        self._node = node
        self._uptime_s = uptime_s

    def apply(self, message: ControlMessage) -> None:
        """Applies a control message. Work that needs the engine continues in the background.

        The subscriptions of a session that is still connecting do not change: nothing may reach the client before its
        connect reply, which lists its channels. The effect is as if the message had come before the session.
        """
        for session in self._select(message.who):
            if isinstance(message, SubscribeSessions):
                if session.phase is SessionPhase.CONNECTED:
                    self._start_subscribing(session, message)
            elif isinstance(message, UnsubscribeSessions):
                if session.phase is SessionPhase.CONNECTED:
                    self._unsubscribe(session, message.channel)
            elif isinstance(message, DisconnectSessions):
                if session.client not in message.whitelist:
                    session.end(DisconnectCode(message.code, message.reason, ""))
            elif isinstance(message, MessageSessions):
                if session.phase is SessionPhase.CONNECTED:
                    session.push(MessagePush(payload(message.data)))
            else:
                self._refresh(session, message)

    def _select(self, who: Selector) -> list[Session]:
        """All sessions of the user, or the one session that matches every given field. None for an empty selector."""
        registry = self._registry
        if not who.client and not who.session:
            return registry.by_user(who.user) if who.user else []
        found = registry.by_client(who.client) if who.client else registry.by_session(who.session)
        if found is None or who.user not in ("", found.user):
            return []
        if who.session and who.session not in (found.client, found.transport.secret):
            return []
        return [found]

    def _start_subscribing(self, session: Session, message: SubscribeSessions, failures: int = 0) -> None:
        """A newer request for the channel replaces one that waits for its repetition."""
        self._stop_repeating(session, message.channel)
        self._background.start_engine_work(self._subscribe(session, message, failures))

    async def _subscribe(self, session: Session, message: SubscribeSessions, failures: int) -> None:
        """Makes a server-side subscription. A session that is subscribed already or has too many stays as it is.

        The server API has its answer already, so a temporary failure is repeated a few times.
        """
        grant = SubscriptionGrant(
            info=payload(message.info),
            data=payload(message.data),
            expire_at_unix_s=message.expire_at_unix_s,
            override=message.override,
        )
        request = SubscriptionRequest(message.channel, since=message.since)
        preparation = self._operations.preparation
        try:
            preparation.check_limits(session, message.channel)
            namespace = self._namespaces.resolve(message.channel)
            grant = await self._operations.decisions.subscribe(session, request, namespace, Via.SERVER_API, grant)
            prepared = await preparation.prepare(session, request, namespace, grant, server_side=True)
            preparation.enter(session, [prepared], lambda: _push_start(session, prepared.start))
        except CommandError as error:
            if error.code.temporary and not session.has_ended():
                self._repeat_later(session, message, failures + 1, error)
        except Disconnect as disconnect:
            session.end_with(disconnect)

    def _repeat_later(self, session: Session, message: SubscribeSessions, failures: int, error: CommandError) -> None:
        if failures >= SUBSCRIBE_TRIES_MAX:
            self._events.emit(WorkDropped("subscribe", 1, f"channel {message.channel!r}: {error}"))
            return

        def repeat() -> None:
            del self._repeated[session.client, message.channel]
            if session.phase is SessionPhase.CONNECTED:
                self._start_subscribing(session, message, failures)

        timer = self._timers.after(self._backoff.delay_s(failures), repeat)
        self._repeated[session.client, message.channel] = timer

    def _stop_repeating(self, session: Session, channel: str) -> None:
        timer = self._repeated.pop((session.client, channel), None)
        if timer is not None:
            timer.cancel()

    def _unsubscribe(self, session: Session, channel: str) -> None:
        """Ends the subscription to the channel, or to every channel if `channel` is empty."""
        for client, waiting in list(self._repeated):
            if client == session.client and channel in ("", waiting):
                self._stop_repeating(session, waiting)
        for subscription in list(session.subscriptions.values()):
            if channel in ("", subscription.channel) and not subscription.options.of_protocol:
                session.unsubscribe_with_push(subscription, UNSUBSCRIBED_BY_SERVER)

    def _refresh(self, session: Session, message: RefreshSessions) -> None:
        if message.expired:
            session.end(CONNECTION_EXPIRED, "the server ended the connection's lifetime")
            return
        if message.info is not None:
            session.identity = structs.replace(session.identity, info=payload(message.info))
            session.update_info()
        self._operations.expiry.set_connection_expiry(session, message.expire_at_unix_s)
        if session.phase is SessionPhase.CONNECTED:
            ttl_s = self._operations.expiry.ttl_s(message.expire_at_unix_s)
            session.push(RefreshPush(ttl_s > 0, ttl_s))

    def channel_counts(self) -> dict[str, int]:
        return dict(self._hub.channels())

    def node_info(self) -> NodeInfo:
        node, hub, registry = self._node, self._hub.statistics(), self._registry
        return NodeInfo(
            uid=node.uid,
            name=node.name,
            version=node.version,
            num_clients=len(registry),
            num_users=registry.users,
            num_channels=hub.channels,
            num_subs=hub.subscriptions,
            uptime=self._uptime_s(),
        )

    def connection_infos(self, survey: ConnectionsSurvey) -> list[ConnectionInfo]:
        registry = self._registry
        sessions = registry.by_user(survey.user) if survey.user else list(registry)
        if survey.channel:
            sessions = [session for session in sessions if survey.channel in session.subscriptions]
        return [
            ConnectionInfo(
                client=session.client,
                user=session.user,
                transport=session.transport.name,
                protocol=session.wire.codec.name,
                channels=sorted(session.subscriptions),
                connected_at_ms=int(session.connected_at_unix_s * 1000),
                app_name=session.app_name,
                app_version=session.app_version,
                meta=bytes(session.identity.meta),
            )
            for session in itertools.islice(sessions, survey.limit)
        ]


def _push_start(session: Session, start: SubscriptionStart) -> None:
    """Tells the client that it is subscribed, and sends the publications that it has missed."""
    offset, epoch = start.position or (0, "")
    session.push(SubscribePush(start.channel, start.recoverable, epoch, offset, start.position is not None, start.data))
    for publication in start.publications:
        session.push(PublicationPush(start.channel, publication))
