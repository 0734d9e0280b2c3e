"""The connections of each user over all nodes, for `client.user_connection_limit` with an engine of several nodes.

Theory of operation. Each user has an internal presence channel with one entry for each connection. A connect adds its
entry and then counts: of several connects at the same time, the one whose entry comes last counts all others. So there
are never more connections than the limit while the engine keeps the entries. Of two connects for the last place, one or
none is accepted. A connect that finds the limit reached adds no entry, so a client that tries again and again takes no
place from others.

The entries are refreshed like those of presence. Those of a node that has died expire. Those that an engine has lost
are added again by the next refresh; until then only the connections of the same node and newer ones count.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

from beaconfire.base.errors import CONNECTION_CLOSED, CONNECTION_LIMIT, Disconnect
from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.channels.lanes import Lanes, in_batches
from beaconfire.channels.namespaces import Namespaces
from beaconfire.channels.periodic import PeriodicWork
from beaconfire.engines.port import PresenceStore
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.model.publication import ClientInfo
from beaconfire.session.registry import SessionRegistry
from beaconfire.session.session import Session

LIMIT = "client.user_connection_limit"
"""The setting, and the name of the limit in metrics."""


class UserConnections:
    """Counts the connections of users over all nodes. The anonymous user has no limit."""

    def __init__(
        self,
        limit: int,
        presence: PresenceStore,
        lanes: Lanes,
        registry: SessionRegistry[Session],
        namespaces: Namespaces,
        runtime: Runtime,
        background: BackgroundTasks,
        events: EventSink,
        refresh_interval_s: float,
        ttl_s: float,
    ) -> None:
        """`limit` is above 0. An entry lives `ttl_s` seconds without a refresh."""
        self._limit = limit
        self._presence = presence
        self._lanes = lanes
        self._registry = registry
        self._prefix = namespaces.internal("connections/")
        self._background = background
        self._events = events
        self._ttl_s = ttl_s
        self._refreshes = PeriodicWork(
            self._refresh, refresh_interval_s, runtime.timers, runtime.schedule, runtime.random, background
        )

    async def add(self, session: Session) -> None:
        """Counts a connection that is in the registry, and returns when it may stay.

        Raises Disconnect 3504 if the user has too many connections, and what the engine raises. Then, and whenever the
        session leaves the registry, `remove` takes the entry away.
        """
        if not session.user:
            return
        channel = self._prefix + session.user
        others = await self._presence.members(channel)
        others.pop(session.client, None)
        if len(others) >= self._limit:
            raise self._refusal(session)
        if session.has_ended():
            raise Disconnect(CONNECTION_CLOSED, "the connection ended while connecting")
        await self._lanes.add(channel, _entry(session))
        self._refreshes.add(session.user)
        if len(await self._presence.members(channel)) > self._limit:
            raise self._refusal(session)

    def remove(self, session: Session) -> None:
        """The session leaves the registry. Repeated until the engine has removed the entry, or it has expired."""
        if session.user:
            self._lanes.remove(self._prefix + session.user, session.client)

    def stop(self) -> None:
        """No refresh starts any more."""
        self._refreshes.stop()

    def _refusal(self, session: Session) -> Disconnect:
        self._events.emit(LimitHit(LIMIT, session.client))
        return Disconnect(CONNECTION_LIMIT, f"the user has {LIMIT} connections already")

    def _refresh(self, users: Sequence[str]) -> Iterator[Coroutine[Any, Any, None]]:
        for user in users:
            clients = [session.client for session in self._registry.by_user(user)]
            if clients:
                self._refreshes.add(user)
            for batch in in_batches(clients):
                yield self._refresh_entries(user, batch)

    async def _refresh_entries(self, user: str, clients: Sequence[str]) -> None:
        """Adds the entries again that the engine has lost."""
        channel = self._prefix + user
        try:
            missing = await self._presence.refresh(channel, clients, self._ttl_s)
        except Exception as error:  # noqa: BLE001 - reported; an entry survives one failed refresh
            self._background.report(error)
            return
        for client in missing:
            session = self._registry.by_client(client)
            if session is not None and session.user == user:
                self._lanes.replace(channel, _entry(session))


def _entry(session: Session) -> ClientInfo:
    return ClientInfo(session.user, session.client)
