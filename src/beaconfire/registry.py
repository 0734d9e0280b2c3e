"""Which sessions are on this node, by client id and by user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Member(Protocol):
    """What the registry needs to know of a session."""

    @property
    def client(self) -> str: ...

    @property
    def user(self) -> str: ...


S = TypeVar("S", bound=Member)


class Registry(Generic[S]):
    """Sessions that have authenticated. The anonymous user "" has no entry of its own: nobody can address it.

    Most users have one session, so a set is made only for the second.
    """

    def __init__(self) -> None:
        self._by_client: dict[str, S] = {}
        self._by_user: dict[str, S | set[S]] = {}

    def add(self, session: S) -> None:
        self._by_client[session.client] = session
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
        present = self._by_user.get(session.user)
        if isinstance(present, set):
            present.discard(session)
            if not present:
                del self._by_user[session.user]
        elif present is session:
            del self._by_user[session.user]

    def by_client(self, client: str) -> S | None:
        return self._by_client.get(client)

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
