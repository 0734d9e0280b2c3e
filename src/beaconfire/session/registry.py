"""The sessions of this node: open, closing, and authenticated ones by client id, session id and user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from beaconfire.base.errors import DisconnectCode


class RegisteredTransport(Protocol):
    """The part of a session's transport that the registry uses."""

    @property
    def secret(self) -> str:
        """The session id that the connect result told the client. Empty if the session has none."""


class UnassignedTransport(Protocol):
    """A transport whose client has not yet told to which session it belongs."""

    def refuse(self, code: DisconnectCode, detail: str = "") -> None:
        """Closes the transport."""


class ClientIdInUse(Exception):
    """An open session has the client id that a client has chosen."""


class RegisteredSession(Protocol):
    """The part of a session that the registry uses."""

    @property
    def transport(self) -> RegisteredTransport: ...

    @property
    def client(self) -> str: ...

    @property
    def user(self) -> str: ...


SessionT = TypeVar("SessionT", bound=RegisteredSession)


class SessionRegistry(Generic[SessionT]):
    """The tables of a node's sessions. Iteration and `len` are over authenticated sessions.

    The anonymous user "" has no entry of its own, because no request may address all anonymous sessions. Most users
    have one session, so a set is made only for the second session of a user.
    """

    def __init__(self) -> None:
        self.open: set[SessionT] = set()
        """Every session that has not ended, authenticated or not."""
        self.closing: set[SessionT] = set()
        """Sessions that have ended while their transport still sends the rest to the client."""
        self.unassigned: set[UnassignedTransport] = set()
        """Transports that do not belong to a session yet. See `session.transport_link`."""
        self.chosen_ids: set[str] = set()
        """The ids of open sessions whose clients have chosen them, authenticated or not."""
        self.on_removed: Callable[[SessionT], None] | None = None
        """Called for each authenticated session that leaves."""
        self._by_client: dict[str, SessionT] = {}
        self._by_secret: dict[str, SessionT] = {}
        self._by_user: dict[str, SessionT | set[SessionT]] = {}

    def add(self, session: SessionT) -> None:
        """Adds an authenticated session."""
        self._by_client[session.client] = session
        if secret := session.transport.secret:
            self._by_secret[secret] = session
        if not session.user:
            return
        present = self._by_user.get(session.user)
        if present is None:
            self._by_user[session.user] = session
        elif isinstance(present, set):
            present.add(session)
        else:
            self._by_user[session.user] = {present, session}

    def remove(self, session: SessionT) -> None:
        """Removes an authenticated session. Idempotent."""
        if self._by_client.get(session.client) is not session:
            return
        del self._by_client[session.client]
        self._by_secret.pop(session.transport.secret, None)
        present = self._by_user.get(session.user)
        if isinstance(present, set):
            present.discard(session)
            if not present:
                del self._by_user[session.user]
        elif present is session:
            del self._by_user[session.user]
        if self.on_removed is not None:
            self.on_removed(session)

    @property
    def connections(self) -> int:
        """The number of transports that sessions have, had until now, or will have: what connection limits count."""
        return len(self.open) + len(self.closing) + len(self.unassigned)

    def claim(self, client: str) -> None:
        """Takes a client id that a client has chosen, until its session ends. Raises ClientIdInUse."""
        if client in self._by_client or client in self.chosen_ids:
            raise ClientIdInUse(client)
        self.chosen_ids.add(client)

    def transport_replaced(self, session: SessionT, old: RegisteredTransport) -> None:
        """An authenticated session has another transport than `old`."""
        if self._by_secret.get(old.secret) is session:
            del self._by_secret[old.secret]
        if secret := session.transport.secret:
            self._by_secret[secret] = session

    def by_client(self, client: str) -> SessionT | None:
        return self._by_client.get(client)

    def by_session(self, session_id: str) -> SessionT | None:
        """The session whose connect result had this `session`. If that was empty, the client id takes its place."""
        found = self._by_secret.get(session_id)
        return found if found is not None else self._by_client.get(session_id)

    def by_user(self, user: str) -> list[SessionT]:
        present = self._by_user.get(user)
        if present is None:
            return []
        return list(present) if isinstance(present, set) else [present]

    def count_user(self, user: str) -> int:
        present = self._by_user.get(user)
        if present is None:
            return 0
        return len(present) if isinstance(present, set) else 1

    @property
    def users(self) -> int:
        """The number of distinct named users."""
        return len(self._by_user)

    def __iter__(self) -> Iterator[SessionT]:
        return iter(list(self._by_client.values()))

    def __len__(self) -> int:
        return len(self._by_client)
