"""A client that has not connected can do nothing, whatever its protocol forgets to check."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest
from msgspec import Raw

from beaconfire.base.errors import BAD_PROTOCOL, Disconnect
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.requests import SubscriptionRequest
from beaconfire.session.operations.assembly import Operations
from beaconfire.session.session import Session, SessionPhase
from tests.unit.kit import NodeHarness, run
from tests.unit.policy.fakes import AnsweringPolicy
from tests.unit.policy.test_chain import PERMISSIONS

DATA: Final = Raw(b"1")
EVERYTHING: Final = ChannelOptions(presence=True, history_size=10, history_ttl=300)  # type: ignore[arg-type]  # seconds

Operation = Callable[[Operations, Session], Coroutine[Any, Any, object]]

OPERATIONS: Final[dict[str, Operation]] = {
    "subscribe": lambda operations, session: operations.subscribing.subscribe(
        session, SubscriptionRequest("news"), lambda start: None
    ),
    "publish": lambda operations, session: operations.publishing.publish(session, "news", DATA),
    "presence": lambda operations, session: operations.reading.presence(session, "news"),
    "presence_stats": lambda operations, session: operations.reading.presence_stats(session, "news"),
    "history": lambda operations, session: operations.reading.history(session, "news", 1),
    "refresh": lambda operations, session: operations.refreshing.refresh(session, "token"),
    "rpc": lambda operations, session: operations.decisions.rpc(session, "echo", DATA),
    "message": lambda operations, session: operations.decisions.message(session, DATA),
}
every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())


@every_operation
@pytest.mark.parametrize("phase", [SessionPhase.NEW, SessionPhase.CONNECTING, SessionPhase.REFUSED])
def test_client_that_has_not_connected_is_disconnected(operation: Operation, phase: SessionPhase) -> None:
    """With 3501. No policy is asked, because its permission would be one for an identity that nobody has verified."""
    policy = AnsweringPolicy(PERMISSIONS.__getitem__)
    harness = NodeHarness(EVERYTHING, policy=policy)
    session = harness.open_session().session
    session.phase = phase
    with pytest.raises(Disconnect) as raised:
        run(operation(harness.node.operations, session))
    assert raised.value.code is BAD_PROTOCOL
    assert policy.asked == []
    assert session.subscriptions == {}


def test_publication_of_a_client_that_has_ended_since_is_published() -> None:
    """A command that runs when its session ends comes to its end."""
    harness = NodeHarness(EVERYTHING, policy=AnsweringPolicy(PERMISSIONS.__getitem__))
    client = harness.connect("ann")
    client.drop_connection()
    assert run(harness.node.operations.publishing.publish(client.session, "news", DATA)).position.offset == 1
