"""The command connect: sections 5 and 6 of the protocol reference."""

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
from tests.unit.session.operations.support import OPEN_TO_ANONYMOUS, UNIX_S, connect_with, grants_for

# --- connect


def test_connect_result_has_only_fields_with_a_value() -> None:
    """The client id, the version and the pings."""
    result = NodeHarness().open_session().request("connect")
    assert result == {"client": "client1", "version": "Beaconfire 1.2.3", "ping": 25, "pong": True}


def test_connect_result_has_the_server_time_if_configured() -> None:
    """The time is in milliseconds since 1970."""
    assert NodeHarness(connect_include_server_time=True).open_session().request("connect")["time"] == UNIX_S * 1000


def test_connect_is_reported() -> None:
    """The event has the name and version that the SDK sends."""
    harness = NodeHarness()
    harness.tokens.connections.known["t"] = Identity(user="ann")
    harness.open_session().request("connect", token="t", name="js", version="5.7")
    assert harness.recorder.of(SessionConnected) == [
        SessionConnected("client1", "ann", "test", "centrifuge-json", "js", "5.7")
    ]
    assert (len(harness.node.registry), harness.node.statistics().users) == (1, 1)


def test_second_connect_ends_the_session_with_3501() -> None:
    """The first connect may have succeeded, or may still be suspended."""
    client = NodeHarness().connect()
    assert client.request_code("connect") == 3501

    async def scenario() -> None:
        harness = NodeHarness()
        harness.calls.hold("verify")
        impatient = harness.open_session()
        impatient.send("connect", token="t")
        impatient.send("connect", token="t")
        assert impatient.disconnect_code == 0
        harness.tokens.connections.known["t"] = Identity(user="ann")
        harness.calls.release("verify")
        await settle()
        assert impatient.disconnect_code == 3501

    asyncio.run(scenario())


@pytest.mark.parametrize("method", ["subscribe", "publish", "history", "refresh", "rpc", "unsubscribe", "connect"])
def test_every_command_after_a_failed_connect_ends_the_session_with_3501(method: str) -> None:
    """The session is not registered."""
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
def test_other_first_command_ends_the_session_with_3501(method: str) -> None:
    """The first command must be connect."""
    assert NodeHarness().open_session().request_code(method, channel="news") == 3501


@pytest.mark.parametrize("text", ["{}", '{"send":{"data":1}}', '{"id":1,"ping":{}}', '{"id":1}', "", "\n", "[]", "x"])
def test_invalid_first_message_ends_the_session_with_3501(text: str) -> None:
    """A pong, a send, a ping, and messages that are no commands."""
    client = NodeHarness().open_session()
    client.send_text(text)
    assert client.disconnect_code == 3501


def test_reason_for_an_empty_first_command_says_that_connect_is_missing() -> None:
    """Unknown bytes decode to a pong. The reason does not mention a ping that was not sent."""
    client = NodeHarness(debug_reasons=True).open_session()
    client.send_text("{}")
    assert client.transport.closed == (3501, "bad request: the first command must be connect")


def test_connect_without_credentials_ends_with_3501_or_error_101() -> None:
    """A native client is disconnected. A plain client gets an error and may try again."""
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
def test_connect_with_a_past_expire_at_is_error_110(expire_in_s: float, options: dict[str, Any], code: int) -> None:
    """Insecure mode ignores expiry."""
    harness = NodeHarness(**options)
    identity = Identity(user="ann", expire_at_unix_s=UNIX_S + expire_in_s, client_refresh=True)
    client, outcome = connect_with(harness, identity)
    assert outcome == code
    assert len(harness.node.registry) == (0 if code else 1)
    if options:
        harness.advance_time(3600 * 24, step_s=20_000)
        assert client.disconnect_code in (0, 3012)


def test_connection_over_the_users_limit_is_disconnected_with_3504() -> None:
    """The user's other connections stay. Other users and anonymous clients do not count."""
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


def test_connections_that_are_still_connecting_count_against_the_users_limit() -> None:
    """Parallel connects cannot exceed the limit."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE, user_connection_limit=1)
        harness.calls.hold("history")
        harness.tokens.connections.known["t"] = Identity(user="ann", channels=grants_for("news"))
        first, second = harness.open_session(), harness.open_session()
        first.send("connect", token="t")
        second.send("connect", token="t")
        await settle()
        assert second.disconnect_code == 3504
        harness.calls.release("history")
        await settle()
        assert "connect" in first.receive()[0]

    asyncio.run(scenario())


def test_failing_policy_is_error_100_and_the_client_stays_unauthenticated() -> None:
    """A bug or an outage of the policy."""
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
def test_client_that_disconnects_during_connect_leaves_nothing_behind(held: str) -> None:
    """This holds for every call where connect may be suspended."""

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


def test_plain_clients_connect_anonymously_with_their_first_message() -> None:
    """Anonymous clients must be allowed. A handshake afterwards is error 103."""
    harness = NodeHarness(OPEN_TO_ANONYMOUS)
    client = harness.open_plain_session()
    assert client.send_plain(type="join", room="news", id=1) == [{"type": "joined", "id": 1, "room": "news"}]
    assert client.session.user == ""
    assert len(harness.recorder.of(SessionConnected)) == 1
    assert client.send_plain(type="handshake", user="ann", id=2)[0]["code"] == 103
    assert client.disconnect_code == 0


def test_plain_clients_without_a_handshake_get_error_101_if_anonymous_is_not_allowed() -> None:
    """Every message gets the error. A handshake is still possible."""
    harness = NodeHarness(OPEN_TO_ANONYMOUS, allow_anonymous=False)
    harness.tokens.connections.known["t"] = Identity(user="ann")
    client = harness.open_plain_session()
    for _ in range(2):
        assert client.send_plain(type="join", room="news")[0]["code"] == 101
    assert client.send_plain(type="handshake", token="t")[0]["type"] == "welcome"
    assert client.send_plain(type="join", room="news")[0]["type"] == "joined"


def test_plain_clients_may_send_another_handshake_after_an_expired_token() -> None:
    """An invalid token ends the session."""
    harness = NodeHarness(allow_anonymous=False)
    harness.tokens.connections.known |= {"old": TokenExpired("exp"), "new": Identity(user="ann")}
    client = harness.open_plain_session()
    assert client.send_plain(type="handshake", token="old")[0]["code"] == 109
    assert client.send_plain(type="handshake", token="new")[0]["type"] == "welcome"
    invalid = harness.open_plain_session()
    assert invalid.send_plain(type="handshake", token="forged") == []
    assert invalid.disconnect_code == 3500


def test_plain_ping_and_invalid_messages_need_no_identity() -> None:
    """They do not make the client anonymous."""
    harness = NodeHarness()
    client = harness.open_plain_session()
    assert client.send_plain(type="ping", id=1) == [{"type": "pong", "id": 1}]
    assert client.send_plain(type="join")[0]["code"] == 107
    assert client.send_plain(type="unknown")[0]["code"] == 104
    assert harness.recorder.of(SessionConnected) == []
    assert client.send_plain(type="handshake", user="ann")[0]["type"] == "welcome"
