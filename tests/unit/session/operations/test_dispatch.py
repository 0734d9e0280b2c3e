"""The table of commands, and how failures become replies and disconnects."""

from __future__ import annotations

from typing import get_args

import pytest

from beaconfire.base.errors import BAD_PROTOCOL, BAD_REQUEST, CommandError, Disconnect, PayloadError
from beaconfire.model.events import CommandHandled, InternalError
from beaconfire.model.identity import Identity
from beaconfire.protocols.centrifuge.connection import _ROWS
from beaconfire.protocols.centrifuge.requests import Request
from tests.unit.kit import OPEN, RECOVERABLE, NodeHarness


def test_every_request_type_has_a_handler() -> None:
    """Each has its own name for metrics."""
    assert set(_ROWS) == set(get_args(Request))
    assert len({row.method for row in _ROWS.values()}) == len(_ROWS)


@pytest.mark.parametrize(
    ("failure", "reply", "end"),
    [
        (CommandError(BAD_REQUEST, "x"), 107, 0),
        (Disconnect(BAD_PROTOCOL, "x"), None, 3501),
        (PayloadError("x"), None, 3506),
        (RuntimeError("x"), 100, 0),
    ],
)
def test_failures_become_error_replies_or_disconnects(failure: Exception, reply: int | None, end: int) -> None:
    """Other clients are not affected."""
    harness = NodeHarness(RECOVERABLE)
    harness.recorder.expects_errors = True
    client, neighbour = harness.connect("ann"), harness.connect("bob", "news")
    harness.calls.fail_next("history", failure)
    number = client.send("history", channel="news")
    found = [message for message in client.receive() if message.get("id") == number]
    assert [message["error"]["code"] for message in found] == ([] if reply is None else [reply])
    assert client.disconnect_code == end
    assert neighbour.disconnect_code == 0


def test_unexpected_failure_is_reported_and_hidden_from_the_client() -> None:
    """The traceback is in the event. The client gets the temporary error 100."""
    harness = NodeHarness(RECOVERABLE, debug_reasons=True)
    harness.recorder.expects_errors = True
    client = harness.connect("ann")
    harness.calls.fail_next("history", RuntimeError("an internal secret"))
    error = client.request_reply("history", channel="news")["error"]
    assert error == {"code": 100, "message": "internal server error", "temporary": True}
    [report] = harness.recorder.of(InternalError)
    assert report.where == "history"
    assert "an internal secret" in report.error


def test_unexpected_failure_without_a_reply_ends_the_session_with_3004() -> None:
    """The client may connect again."""
    harness = NodeHarness()
    harness.recorder.expects_errors = True
    client = harness.open_plain_session("lobby")
    harness.calls.fail_next("publish", RuntimeError("broken"))
    client.send_text("hello")
    assert client.disconnect_code == 3004


def test_error_of_a_message_without_a_reply_is_not_sent() -> None:
    """A refused lobby frame has no reply, and the session stays open."""
    harness = NodeHarness()
    client = harness.open_plain_session("lobby")
    harness.calls.fail_next("publish", CommandError(BAD_REQUEST))
    client.send_text("hello")
    assert client.receive() == []
    assert client.disconnect_code == 0
    assert harness.recorder.of(CommandHandled)[-1].error == 107


def test_every_command_is_reported_once() -> None:
    """The event has its name, the label of its namespace, its error and the user."""
    harness = NodeHarness(OPEN, {"ns": OPEN})
    harness.tokens.connections.known["t"] = Identity(user="ann")
    client = harness.open_session()
    client.request("connect", token="t")
    client.request("subscribe", channel="ns:x")
    client.request_code("publish", channel="nowhere:x", data=1)
    client.request_code("subscribe", channel="")
    assert [(e.method, e.namespace, e.error, e.user) for e in harness.recorder.of(CommandHandled)] == [
        ("connect", "", 0, "ann"),
        ("subscribe", "ns", 0, "ann"),
        ("publish", "", 102, "ann"),
        ("subscribe", "", 3501, "ann"),
    ]


def test_duration_of_commands_is_measured() -> None:
    """The duration is from the start to the end of the command."""
    harness = NodeHarness()
    client = harness.connect("ann")
    publish = harness.node.channels.publish

    async def publish_slowly(*args: object, **options: object) -> object:
        harness.clock.advance(0.25)
        return await publish(*args, **options)  # type: ignore[arg-type]

    harness.node.channels.publish = publish_slowly  # type: ignore[method-assign,assignment]
    client.request("publish", channel="news", data=1)
    assert harness.recorder.of(CommandHandled)[-1].duration_s == 0.25


def test_commands_of_one_frame_are_answered_in_order() -> None:
    """Commands after the one that ends the session are ignored."""
    harness = NodeHarness()
    client = harness.connect("ann")
    lines = [
        '{"id":11,"subscribe":{"channel":"a"}}',
        '{"id":12,"subscribe":{"channel":"a"}}',
        '{"id":13,"unsubscribe":{"channel":"a"}}',
        '{"id":14,"subscribe":{"channel":""}}',
        '{"id":15,"publish":{"channel":"b","data":1}}',
    ]
    client.send_text("\n".join(lines))
    assert [message["id"] for message in client.receive()] == [11, 12, 13]
    assert client.disconnect_code == 3501
    handled = [event.method for event in harness.recorder.of(CommandHandled)]
    assert handled == ["connect", "subscribe", "subscribe", "unsubscribe", "subscribe"]
    assert harness.node.hub.statistics().subscriptions == 0


def test_text_of_a_failure_has_code_and_detail() -> None:
    """This holds for errors and disconnects."""
    assert str(CommandError(BAD_REQUEST, "x is y")) == "107 bad request: x is y"
    assert str(Disconnect(BAD_PROTOCOL)) == "3501 bad request"


def test_details_are_sent_only_with_debug_reasons() -> None:
    """They help developers, and attackers as well."""
    for debug in (False, True):
        harness = NodeHarness(debug_reasons=debug)
        client = harness.open_session()
        client.send("connect", token="forged")
        assert client.transport.closed is not None
        code, reason = client.transport.closed
        assert code == 3500
        assert ("no such token" in reason) is debug
        assert reason.startswith("invalid token")
        error = harness.connect("ann").request_reply("rpc")["error"]["message"]
        assert ("handler" in error) is debug
