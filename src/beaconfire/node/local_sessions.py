"""What the server API does to sessions, applied to those that live on this node."""

from __future__ import annotations

import itertools

from msgspec import structs

from beaconfire.base.errors import (
    CONNECTION_EXPIRED,
    UNSUBSCRIBED_BY_SERVER,
    CommandError,
    Disconnect,
    DisconnectCode,
)
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.pushes import SubscribePush
from beaconfire.model.requests import SubscribeRequest
from beaconfire.node.cluster import (
    ConnectionInfo,
    ConnectionsSurvey,
    ControlMessage,
    DisconnectSessions,
    NodeInfo,
    RefreshSessions,
    Selector,
    SubscribeSessions,
    UnsubscribeSessions,
    payload,
)
from beaconfire.node.node import Node
from beaconfire.session.operations.connect import expire_at
from beaconfire.session.operations.subscribe import (
    PreparedSubscription,
    check_room,
    complete,
    enter,
    go_live,
)
from beaconfire.session.session import Session, SessionPhase


class LocalSessions:
    """Implements `cluster.Resident` over the sessions of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def apply(self, message: ControlMessage) -> None:
        """Carries out a control message. What needs the engine goes on in the background.

        A session that is still connecting does not change its channels: nothing may reach the client before its
        connect reply, which will tell which channels it is in. It is as if the message had come a moment earlier.
        """
        for session in self._select(message.who):
            if isinstance(message, SubscribeSessions):
                if session.phase is SessionPhase.CONNECTED:
                    self._node.background.start(self._subscribe(session, message))
            elif isinstance(message, UnsubscribeSessions):
                if session.phase is SessionPhase.CONNECTED:
                    self._unsubscribe(session, message.channel)
            elif isinstance(message, DisconnectSessions):
                if session.client not in message.whitelist:
                    session.end(DisconnectCode(message.code, message.reason, ""))
            else:
                self._refresh(session, message)

    def _select(self, who: Selector) -> list[Session]:
        """All sessions of the user, or the one that everything given is true of; nobody for nothing given."""
        registry = self._node.registry
        if not who.client and not who.session:
            return registry.by_user(who.user) if who.user else []
        found = registry.by_client(who.client) if who.client else registry.by_session(who.session)
        if found is None or who.user not in ("", found.user):
            return []
        if who.session and who.session not in (found.client, found.transport.secret):
            return []
        return [found]

    async def _subscribe(self, session: Session, message: SubscribeSessions) -> None:
        """Into the channel, server-side; who is in it already or cannot have one more stays as it is."""
        grant = SubscriptionGrant(
            info=payload(message.info),
            data=payload(message.data),
            expire_at_unix_s=message.expire_at_unix_s,
            override=message.override,
        )
        since = message.since
        request = SubscribeRequest(
            channel=message.channel,
            recover=since is not None,
            offset=since.offset if since is not None else 0,
            epoch=since.epoch if since is not None else "",
        )
        try:
            check_room(session, message.channel)
            namespace = self._node.namespaces.resolve(message.channel)
            entrance = await enter(session, request, namespace, grant, server_side=True)
            publications = go_live(entrance)
        except CommandError:
            return
        except Disconnect as disconnect:
            session.end_with(disconnect)
            return
        session.push(_subscribe_push(entrance))
        complete(session, entrance, [*entrance.result.publications, *publications])

    def _unsubscribe(self, session: Session, channel: str) -> None:
        for subscription in list(session.subscriptions.values()):
            if channel in ("", subscription.channel) and subscription.channel != session.traits.lobby:
                session.expel(subscription, UNSUBSCRIBED_BY_SERVER)

    def _refresh(self, session: Session, message: RefreshSessions) -> None:
        if message.expired:
            session.end(CONNECTION_EXPIRED, "the server ended the connection's lifetime")
            return
        if message.info is not None:
            session.identity = structs.replace(session.identity, info=payload(message.info))
            session.update_info()
        expire_at(session, message.expire_at_unix_s)

    def channel_counts(self) -> dict[str, int]:
        return dict(self._node.hub.channels())

    def node_info(self) -> NodeInfo:
        node, statistics = self._node, self._node.statistics()
        return NodeInfo(
            uid=node.options.uid,
            name=node.options.name,
            version=node.options.version,
            num_clients=statistics.sessions,
            num_users=statistics.users,
            num_channels=statistics.channels,
            num_subs=statistics.subscriptions,
            uptime=int(node.clock.now_s() - node.started_s),
        )

    def connection_infos(self, survey: ConnectionsSurvey) -> list[ConnectionInfo]:
        registry = self._node.registry
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
            )
            for session in itertools.islice(sessions, survey.limit)
        ]


def _subscribe_push(entrance: PreparedSubscription) -> SubscribePush:
    result = entrance.result
    return SubscribePush(
        channel=entrance.subscription.channel,
        recoverable=result.recoverable,
        epoch=result.epoch,
        offset=result.offset,
        positioned=result.positioned,
        data=result.data,
    )
