"""Connect, refresh and what belongs to the connection as a whole: sections 5, 6, 8 and 13 of the reference."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.events import SessionConnected, SessionEnded
from beaconfire.model.identity import Identity
from beaconfire.policy.tokens import TokenExpired
from tests.unit.kit import RECOVERABLE, NodeHarness, settle
from tests.unit.session.operations.support import (
    OPEN_TO_ANONYMOUS,
    UNIX_S,
    connect_with,
    grants_for,
)

# --- connect


def test_the_result_is_as_small_as_can_be() -> None:
    """Id, version, and how pings go; whatever else there could be has no value yet and is left out."""
    result = NodeHarness().open_session().request("connect")
    assert result == {"client": "client1", "version": "Beaconfire 1.2.3", "ping": 25, "pong": True}


def test_the_servers_time_is_in_the_result_on_request() -> None:
    """In milliseconds since 1970."""
    assert NodeHarness(connect_include_server_time=True).open_session().request("connect")["time"] == UNIX_S * 1000


def test_connecting_is_reported() -> None:
    """With what the SDK says of itself."""
    harness = NodeHarness()
    harness.tokens.connections.known["t"] = Identity(user="ann")
    harness.open_session().request("connect", token="t", name="js", version="5.7")
    assert harness.recorder.of(SessionConnected) == [
        SessionConnected("client1", "ann", "test", "centrifuge-json", "js", "5.7")
    ]
    assert (len(harness.node.registry), harness.node.statistics().users) == (1, 1)


def test_a_second_connect_ends_the_session() -> None:
    """With 3501, after a good one and while the first is still on its way."""
    client = NodeHarness().connect()
    assert client.request_code("connect") == 3501

    async def scenario() -> None:
        harness = NodeHarness()
        harness.calls.hold("verify")
        hasty = harness.open_session()
        hasty.send("connect", token="t")
        hasty.send("connect", token="t")
        assert hasty.disconnect_code == 0
        harness.tokens.connections.known["t"] = Identity(user="ann")
        harness.calls.release("verify")
        await settle()
        assert hasty.disconnect_code == 3501

    asyncio.run(scenario())


@pytest.mark.parametrize("method", ["subscribe", "publish", "history", "refresh", "rpc", "unsubscribe", "connect"])
def test_a_connect_that_failed_leaves_a_useless_connection(method: str) -> None:
    """After the error reply any command is the end with 3501; nobody is registered."""
    harness = NodeHarness()
    harness.tokens.connections.known["t"] = TokenExpired("exp")
    client = harness.open_session()
    assert client.request_code("connect", token="t") == 109
    assert client.disconnect_code == 0
    assert len(harness.node.registry) == 0
    assert client.request_code(method, **({} if method == "connect" else {"channel": "news"})) == 3501


@pytest.mark.parametrize(
    "method", ["subscribe", "publish", "presence", "history", "unsubscribe", "refresh", "sub_refresh"]
)
def test_the_first_command_must_be_connect(method: str) -> None:
    """Anything else is the end with 3501."""
    assert NodeHarness().open_session().request_code(method, channel="news") == 3501


@pytest.mark.parametrize("text", ["{}", '{"send":{"data":1}}', '{"id":1,"ping":{}}', '{"id":1}', "", "\n", "[]", "x"])
def test_garbage_for_a_start_ends_the_session(text: str) -> None:
    """A pong, a send or a ping nobody asked for, and what is no command at all: 3501."""
    client = NodeHarness().open_session()
    client.send_text(text)
    assert client.disconnect_code == 3501


def test_a_pong_for_a_start_is_called_what_it_usually_is() -> None:
    """Unknown bytes decode to one: the reason says that connect was expected, not that no ping was sent."""
    client = NodeHarness(debug_reasons=True).open_session()
    client.send_text("{}")
    assert client.transport.closed == (3501, "bad request: the first command must be connect")


def test_without_credentials_a_native_client_is_ended() -> None:
    """With 3501, and a plain one gets error 101 and may try again."""
    harness = NodeHarness(allow_anonymous=False)
    assert harness.open_session().request_code("connect") == 3501
    plain = harness.open_plain_session()
    assert plain.send_plain(type="handshake", id=1) == [
        {"type": "error", "id": 1, "code": 101, "message": "unauthorized"},
    ]
    assert plain.disconnect_code == 0
    harness.tokens.connections.known["t"] = Identity(user="ann")
    assert [message["type"] for message in plain.send_plain(type="handshake", token="t")] == ["welcome"]
    assert plain.session.user == "ann"


@pytest.mark.parametrize(
    ("expire_in_s", "options", "code"),
    [(0.0, {}, 110), (-5.0, {}, 110), (5.0, {}, 0), (-5.0, {"insecure": True}, 0)],
)
def test_a_connection_whose_time_is_up_is_error_110(expire_in_s: float, options: dict[str, Any], code: int) -> None:
    """Unless expiry does not count, in insecure mode."""
    harness = NodeHarness(**options)
    identity = Identity(user="ann", expire_at_unix_s=UNIX_S + expire_in_s, client_refresh=True)
    client, outcome = connect_with(harness, identity)
    assert outcome == code
    assert len(harness.node.registry) == (0 if code else 1)
    if options:
        harness.advance_time(3600 * 24, step_s=20_000)
        assert client.disconnect_code in (0, 3012)


def test_a_user_may_have_so_many_connections() -> None:
    """One more is the end with 3504; the others stay, other users and nameless ones are not counted."""
    harness = NodeHarness(user_connection_limit=2)
    first, second = harness.connect("ann"), harness.connect("ann")
    refused, outcome = connect_with(harness, Identity(user="ann"))
    assert outcome == 3504
    assert harness.recorder.limits() == ["client.user_connection_limit"]
    assert (first.disconnect_code, second.disconnect_code) == (0, 0)
    assert connect_with(harness, Identity(user="bob"))[1] == 0
    for _ in range(5):
        assert harness.open_session().request_code("connect") == 0
    first.drop_connection()
    assert connect_with(harness, Identity(user="ann"))[1] == 0
    assert refused.disconnect_code == 3504


def test_connections_that_are_being_made_count() -> None:
    """Nobody slips through the limit by connecting many times at once."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE, user_connection_limit=1)
        harness.calls.hold("history")
        harness.tokens.connections.known["t"] = Identity(user="ann", channels=grants_for("news"))
        first, second = harness.open_session(), harness.open_session()
        first.send("connect", token="t")
        second.send("connect", token="t")
        assert second.disconnect_code == 3504
        harness.calls.release("history")
        await settle()
        assert "connect" in first.receive()[0]

    asyncio.run(scenario())


def test_when_deciding_fails_nobody_is_let_in() -> None:
    """A bug or an outage of whoever decides is error 100, and the client is as unknown as before."""
    harness = NodeHarness(allow_anonymous=False)
    harness.recorder.expects_errors = True
    harness.calls.fail_next("verify", RuntimeError("broken"))
    native = harness.open_session()
    assert native.request_code("connect", token="t") == 100
    assert native.request_code("subscribe", channel="news") == 3501
    harness.calls.fail_next("verify", RuntimeError("broken"))
    plain = harness.open_plain_session()
    assert plain.send_plain(type="handshake", token="t")[0]["code"] == 100
    assert plain.send_plain(type="join", room="news")[0]["code"] == 101
    harness.tokens.connections.known["t"] = Identity(user="ann")
    assert plain.send_plain(type="handshake", token="t")[0]["type"] == "welcome"


@pytest.mark.parametrize("held", ["verify", "attach", "history", "presence_add"])
def test_a_client_that_goes_while_it_connects_leaves_nothing(held: str) -> None:
    """Wherever its connect was waiting."""

    async def scenario() -> None:
        options = ChannelOptions(
            presence=True, join_leave=True, history_size=5, history_ttl=Seconds(60), force_recovery=True
        )
        harness = NodeHarness(options)
        harness.tokens.connections.known["t"] = Identity(user="ann", channels=grants_for("a", "b"))
        harness.calls.hold(held)
        client = harness.open_session()
        client.send("connect", token="t")
        await settle()
        client.drop_connection()
        harness.calls.release(held)
        await settle()
        assert client.receive() == []
        assert len(harness.node.registry) == 0
        assert harness.node.hub.statistics().subscriptions == 0
        assert harness.present_clients("a") | harness.present_clients("b") == set()
        assert harness.recorder.of(SessionConnected) == []
        assert not any(call.startswith("publish_") for call in harness.calls.completed)
        assert [event.code for event in harness.recorder.of(SessionEnded)] == [3000]
        harness.advance_time(60)
        await settle()
        assert harness.attached_channels() == 0
        assert len(harness.timers) == 0

    asyncio.run(scenario())


# --- the plain protocol


def test_plain_clients_become_anonymous_by_themselves() -> None:
    """Where that is allowed, the first message that needs somebody makes them nobody."""
    harness = NodeHarness(OPEN_TO_ANONYMOUS)
    client = harness.open_plain_session()
    assert client.send_plain(type="join", room="news", id=1) == [{"type": "joined", "id": 1, "room": "news"}]
    assert client.session.user == ""
    assert len(harness.recorder.of(SessionConnected)) == 1
    assert client.send_plain(type="handshake", user="ann", id=2)[0]["code"] == 103
    assert client.disconnect_code == 0


def test_plain_clients_that_may_not_be_anonymous_are_told() -> None:
    """Each time, and a handshake still helps."""
    harness = NodeHarness(OPEN_TO_ANONYMOUS, allow_anonymous=False)
    harness.tokens.connections.known["t"] = Identity(user="ann")
    client = harness.open_plain_session()
    for _ in range(2):
        assert client.send_plain(type="join", room="news")[0]["code"] == 101
    assert client.send_plain(type="handshake", token="t")[0]["type"] == "welcome"
    assert client.send_plain(type="join", room="news")[0]["type"] == "joined"


def test_plain_clients_may_retry_a_token_that_expired() -> None:
    """An error does not make their connection useless, but a forged token ends it."""
    harness = NodeHarness(allow_anonymous=False)
    harness.tokens.connections.known |= {"old": TokenExpired("exp"), "new": Identity(user="ann")}
    client = harness.open_plain_session()
    assert client.send_plain(type="handshake", token="old")[0]["code"] == 109
    assert client.send_plain(type="handshake", token="new")[0]["type"] == "welcome"
    forger = harness.open_plain_session()
    assert forger.send_plain(type="handshake", token="forged") == []
    assert forger.disconnect_code == 3500


def test_plain_clients_may_ping_and_err_before_they_are_somebody() -> None:
    """Neither needs to know who they are, and neither makes them anonymous."""
    harness = NodeHarness()
    client = harness.open_plain_session()
    assert client.send_plain(type="ping", id=1) == [{"type": "pong", "id": 1}]
    assert client.send_plain(type="join")[0]["code"] == 107
    assert client.send_plain(type="dance")[0]["code"] == 104
    assert harness.recorder.of(SessionConnected) == []
    assert client.send_plain(type="handshake", user="ann")[0]["type"] == "welcome"
