"""The tables of a node's sessions."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from beaconfire.session.registry import ClientIdInUse, SessionRegistry


class FakeTransport(NamedTuple):
    secret: str = ""


class FakeSession(NamedTuple):
    client: str
    user: str
    transport: FakeTransport = FakeTransport()


class MovingSession:
    """A session whose transport changes."""

    def __init__(self, client: str, user: str, transport: FakeTransport) -> None:
        self.client = client
        self.user = user
        self.transport = transport


ANN_1, ANN_2, ANN_3 = (FakeSession(f"a{n}", "ann") for n in (1, 2, 3))
ANONYMOUS = FakeSession("n1", "")


@pytest.fixture
def registry() -> SessionRegistry[FakeSession]:
    return SessionRegistry()


def test_sessions_are_found_by_client_and_by_user(registry: SessionRegistry[FakeSession]) -> None:
    """A user may have any number of sessions."""
    assert registry.by_user("ann") == []
    assert registry.count_user("ann") == 0
    for count, session in enumerate((ANN_1, ANN_2, ANN_3), 1):
        registry.add(session)
        assert registry.count_user("ann") == count
    assert sorted(registry.by_user("ann")) == [ANN_1, ANN_2, ANN_3]
    assert registry.by_client("a2") == ANN_2
    assert registry.by_client("b1") is None
    assert (len(registry), registry.users) == (3, 1)


@pytest.mark.parametrize("sessions", [(ANN_1,), (ANN_1, ANN_2), (ANN_1, ANN_2, ANN_3)])
def test_removed_sessions_are_in_no_table(
    registry: SessionRegistry[FakeSession], sessions: tuple[FakeSession, ...]
) -> None:
    """The user's entry ends with the last session of the user."""
    for session in sessions:
        registry.add(session)
    for left, session in reversed(list(enumerate(sessions))):
        registry.remove(session)
        registry.remove(session)
        assert registry.count_user("ann") == left
        assert len(registry.by_user("ann")) == left
        assert registry.by_client(session.client) is None
    assert (len(registry), registry.users) == (0, 0)
    registry.add(ANN_1)
    assert registry.by_user("ann") == [ANN_1]


def test_session_is_found_by_session_id_or_client_id(registry: SessionRegistry[FakeSession]) -> None:
    """By the secret of its transport if there is one, and always by its client id. The empty id finds nothing."""
    emulated = FakeSession("a4", "ann", FakeTransport("hush"))
    for session in (ANN_1, emulated):
        registry.add(session)
    assert registry.by_session("hush") is emulated
    assert registry.by_session("a4") is emulated
    assert registry.by_session("a1") is ANN_1
    assert registry.by_session("") is None
    registry.remove(FakeSession("a4", "ann", FakeTransport("hush")))
    assert registry.by_session("hush") is emulated
    registry.remove(emulated)
    assert registry.by_session("hush") is None


def test_anonymous_sessions_are_not_found_by_user(registry: SessionRegistry[FakeSession]) -> None:
    """A request with an empty user must not address all anonymous sessions."""
    registry.add(ANONYMOUS)
    assert registry.by_user("") == []
    assert registry.count_user("") == 0
    assert registry.users == 0
    assert registry.by_client("n1") == ANONYMOUS
    registry.remove(ANONYMOUS)
    assert len(registry) == 0


def test_only_the_session_itself_is_removed(registry: SessionRegistry[FakeSession]) -> None:
    """Removing an equal session or one that was never added changes nothing."""
    registry.add(ANN_1)
    registry.remove(FakeSession("a1", "ann"))
    registry.remove(ANN_2)
    assert registry.by_user("ann") == [ANN_1]


def test_sessions_may_be_removed_during_iteration(registry: SessionRegistry[FakeSession]) -> None:
    """A drain ends every session while it iterates."""
    for session in (ANN_1, ANN_2, ANONYMOUS):
        registry.add(session)
    for session in registry:
        registry.remove(session)
    assert len(registry) == 0


def test_session_is_found_by_the_secret_of_its_present_transport(registry: SessionRegistry[Any]) -> None:
    """A transport that another session uses meanwhile stays that session's."""
    old, new = FakeTransport("old"), FakeTransport("new")
    session, other = MovingSession("a1", "ann", old), MovingSession("a2", "ann", old)
    registry.add(session)
    session.transport = new
    registry.transport_replaced(session, old)
    assert (registry.by_session("old"), registry.by_session("new")) == (None, session)
    registry.add(other)
    session.transport = FakeTransport()
    registry.transport_replaced(session, old)
    assert registry.by_session("old") is other
    registry.transport_replaced(session, new)
    assert registry.by_session("new") is None
    assert registry.by_session("a1") is session


def test_chosen_client_id_is_taken_once(registry: SessionRegistry[FakeSession]) -> None:
    """It must not be the id of an authenticated session either."""
    registry.add(ANN_1)
    registry.claim("own")
    for client in ("own", "a1"):
        with pytest.raises(ClientIdInUse):
            registry.claim(client)
    assert registry.chosen_ids == {"own"}
