"""The connection object of clients that only listen."""

from __future__ import annotations

import asyncio
import json

import pytest

from beaconfire.base.errors import ERRORS, CommandError, ErrorCode
from beaconfire.model.events import CommandHandled
from beaconfire.model.identity import Identity
from beaconfire.policy.no_opinion import NoOpinion
from beaconfire.policy.port import ConnectionAttempt
from beaconfire.policy.tokens import TokenExpired, TokenUnverifiable
from beaconfire.protocols.centrifuge.unidirectional_connection import UnidirectionalConnection
from beaconfire.transports.traits import Pings, SessionTraits
from tests.unit.kit import RECOVERABLE, NodeHarness, settle


@pytest.mark.parametrize(
    ("token", "code"), [("old", 3005), ("unverifiable", 3004), ("", 3501), ("unknown", 3500), ("past", 3005)]
)
def test_failures_of_connect_end_the_session(token: str, code: int) -> None:
    """Where other clients get an error reply. Only a temporary failure has a code after which the client connects
    again."""
    harness = NodeHarness(RECOVERABLE, allow_anonymous=False)
    harness.tokens.connections.known |= {
        "old": TokenExpired("exp"),
        "unverifiable": TokenUnverifiable("no keys"),
        "past": Identity(user="ann", expire_at_unix_s=harness.clock.unix_s() - 60),
    }
    client = harness.open_unidirectional_session()
    client.send_text(json.dumps({"token": token}))
    assert (client.disconnect_code, client.receive()) == (code, [])


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.message)
def test_every_error_has_a_disconnect_code(error: ErrorCode) -> None:
    """An expired token: connect again with a new one. An internal error: connect again. All others are final."""
    client = NodeHarness(RECOVERABLE, debug_reasons=True).open_unidirectional_session()
    connection = client.session.protocol
    assert isinstance(connection, UnidirectionalConnection)
    connection.reply_error(1, CommandError(error, "because"))
    assert client.disconnect_code == {100: 3004, 109: 3005, 110: 3005}.get(error.code, 3507)
    assert client.transport.closed is not None
    assert client.transport.closed[1].endswith(": because")


def test_later_messages_have_no_effect_but_count() -> None:
    """Whatever they contain. So a client cannot send without a limit either."""
    harness = NodeHarness(RECOVERABLE, message_rate_limit=5)
    harness.tokens.connections.known["ann"] = Identity(user="ann")
    client = harness.open_unidirectional_session()
    client.send_text('{"token":"ann"}')
    assert "connect" in client.receive()[0]
    for text in ("nonsense", '{"id":1,"publish":{"channel":"news","data":1}}', '{"token":"ann"}', "{}"):
        client.send_text(text)
    assert (client.disconnect_code, client.receive()) == (0, [])
    client.send_text("{}")
    client.send_text("{}")
    assert client.disconnect_code == 3013
    assert harness.memory.broker.statistics().publications == 0
    assert [event.method for event in harness.recorder.of(CommandHandled)] == ["connect"]


class SlowPolicy(NoOpinion):
    """A connect waits until `finish` is set."""

    suspending = frozenset({"connect"})

    def __init__(self) -> None:
        self.finish = asyncio.Event()

    async def connect(self, attempt: ConnectionAttempt) -> Identity | None:
        await self.finish.wait()
        return None


def test_messages_before_a_slow_connect_has_begun_have_no_effect() -> None:
    """The connect waits for its task, so the session is still new when the next messages come."""

    async def scenario() -> None:
        policy = SlowPolicy()
        client = NodeHarness(RECOVERABLE, policy=policy).open_unidirectional_session()
        for text in ("{}", "{}", "nonsense"):
            client.send_text(text)
        await settle()
        policy.finish.set()
        await settle()
        [message] = client.receive()
        assert ("connect" in message, client.disconnect_code) == (True, 0)

    asyncio.run(scenario())


def test_a_failed_connect_is_not_tried_again_with_the_next_message() -> None:
    """The session has ended."""
    harness = NodeHarness(RECOVERABLE, allow_anonymous=False)
    harness.tokens.connections.known["ann"] = Identity(user="ann")
    client = harness.open_unidirectional_session()
    client.send_text('{"token":"unknown"}')
    client.send_text('{"token":"ann"}')
    assert (client.disconnect_code, len(harness.node.registry)) == (3500, 0)


@pytest.mark.parametrize(("pings", "shown"), [(Pings.UNANSWERED, 25), (Pings.TRANSPORT, None)])
def test_the_client_need_not_answer_pings(pings: Pings, shown: int | None) -> None:
    """It knows the interval of pings of the protocol, and finds a dead connection by it."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.open_unidirectional_session(SessionTraits(pings))
    client.send_text("")
    [message] = client.receive()
    assert (message["connect"].get("ping"), "pong" in message["connect"]) == (shown, False)
    harness.advance_time(26)
    assert client.receive() == ([{}] if pings is Pings.UNANSWERED else [])
    if pings is Pings.TRANSPORT:
        client.session.on_transport_pong()
    harness.advance_time(20)
    assert client.disconnect_code == 0
