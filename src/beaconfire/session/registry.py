"""Which sessions are on this node, by client id, by session id and by user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Way(Protocol):
    """What the registry needs to know of a session's transport."""

    @property
    def secret(self) -> str:
        """The session id that the connect result told the client; empty where it has none."""


class Member(Protocol):
    """What the registry needs to know of a session."""

    @property
    def transport(self) -> Way: ...

    @property
    def client(self) -> str: ...

    @property
    def user(self) -> str: ...


S = TypeVar("S", bound=Member)


class SessionRegistry(Generic[S]):
    """Sessions that have authenticated. The anonymous user "" has no entry of its own: nobody can address it.

    Most users have one session, so a set is made only for the second.
    """

    def __init__(self) -> None:
        self._by_client: dict[str, S] = {}
        self._by_secret: dict[str, S] = {}
        self._by_user: dict[str, S | set[S]] = {}

    def add(self, session: S) -> None:
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

    def remove(self, session: S) -> None:
        """Idempotent."""
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

    def by_client(self, client: str) -> S | None:
        return self._by_client.get(client)

    def by_session(self, session_id: str) -> S | None:
        """By what the connect result calls `session`. Where that is empty, the client id stands in for it."""
        found = self._by_secret.get(session_id)
        return found if found is not None else self._by_client.get(session_id)

    def by_user(self, user: str) -> list[S]:
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
        """Distinct named users."""
        return len(self._by_user)

    def __iter__(self) -> Iterator[S]:
        return iter(list(self._by_client.values()))

    def __len__(self) -> int:
        return len(self._by_client)
