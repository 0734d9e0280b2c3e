"""Applies control messages and surveys to the sessions of this node."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from msgspec import structs

from beaconfire.base.errors import (
    CONNECTION_EXPIRED,
    UNSUBSCRIBED_BY_SERVER,
    DisconnectCode,
)
from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.channels.namespaces import Namespaces
from beaconfire.delivery.hub import Hub
from beaconfire.model.events import EventSink
from beaconfire.model.node import NodeIdentity
from beaconfire.model.publication import to_payload
from beaconfire.model.pushes import MessagePush, RefreshPush
from beaconfire.node.cluster import (
    ConnectionInfo,
    ConnectionsSurvey,
    ControlMessage,
    DisconnectSessions,
    HistoryRemoved,
    MessageSessions,
    NodeInfo,
    RefreshSessions,
    Selector,
    SubscribeSessions,
    UnsubscribeSessions,
)
from beaconfire.node.requested_subscriptions import RequestedSubscriptions
from beaconfire.session.operations.assembly import Operations
from beaconfire.session.registry import SessionRegistry
from beaconfire.session.session import Session, SessionPhase


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
        forget_history: Callable[[str], None],
    ) -> None:
        """`forget_history` drops what this node keeps of the history of a channel."""
        self._registry = registry
        self._hub = hub
        self._operations = operations
        self._requested = RequestedSubscriptions(namespaces, operations, background, runtime, events)
        self._node = node
        self._uptime_s = uptime_s
        self._forget_history = forget_history

    def apply(self, message: ControlMessage) -> None:
        """Applies a control message. Work that needs the engine continues in the background.

        The subscriptions of a session that is still connecting do not change: nothing may reach the client before its
        connect reply, which lists its channels. The effect is as if the message had come before the session.
        """
        if isinstance(message, HistoryRemoved):
            self._forget_history(message.channel)
            return
        for session in self._select(message.who):
            if isinstance(message, SubscribeSessions):
                if session.phase is SessionPhase.CONNECTED:
                    self._requested.start(session, message)
            elif isinstance(message, UnsubscribeSessions):
                if session.phase is SessionPhase.CONNECTED:
                    self._unsubscribe(session, message.channel)
            elif isinstance(message, DisconnectSessions):
                if session.client not in message.whitelist:
                    session.end(DisconnectCode(message.code, message.reason, ""))
            elif isinstance(message, MessageSessions):
                if session.phase is SessionPhase.CONNECTED:
                    session.push(MessagePush(to_payload(message.data)))
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

    def _unsubscribe(self, session: Session, channel: str) -> None:
        """Ends the subscription to the channel, or to every channel if `channel` is empty."""
        if channel:
            self._requested.cancel(session, channel)
        else:
            self._requested.cancel_all(session)
        for subscription in list(session.subscriptions.values()):
            if channel in ("", subscription.channel) and not subscription.options.of_protocol:
                session.unsubscribe_with_push(subscription, UNSUBSCRIBED_BY_SERVER)

    def _refresh(self, session: Session, message: RefreshSessions) -> None:
        if message.expired:
            session.end(CONNECTION_EXPIRED, "the server ended the connection's lifetime")
            return
        if message.info is not None:
            session.identity = structs.replace(session.identity, info=to_payload(message.info))
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
