"""From a command to its function, and from a failure to what the client is told."""

from __future__ import annotations

from typing import get_args

import pytest

from beaconfire.base.errors import (
    BAD_PROTOCOL,
    BAD_REQUEST,
    CommandError,
    Disconnect,
    PayloadError,
)
from beaconfire.model.events import CommandHandled, InternalError
from beaconfire.model.identity import Identity
from beaconfire.model.requests import Request
from tests.unit.kit import OPEN, RECOVERABLE, World


def test_every_request_has_a_handler() -> None:
    """And a name of its own for metrics."""
    handlers = World().node._operations.dispatcher.handlers
    assert set(handlers) == set(get_args(Request))
    assert len({name for name, _ in handlers.values()}) == len(handlers)


@pytest.mark.parametrize(
    ("failure", "reply", "end"),
    [
        (CommandError(BAD_REQUEST, "x"), 107, 0),
        (Disconnect(BAD_PROTOCOL, "x"), None, 3501),
        (PayloadError("x"), None, 3506),
        (RuntimeError("x"), 100, 0),
    ],
)
def test_failures_become_replies_or_the_end(failure: Exception, reply: int | None, end: int) -> None:
    """Each kind in its way; the neighbours notice nothing."""
    world = World(RECOVERABLE)
    world.recorder.expects_errors = True
    client, neighbour = world.connect("ann"), world.connect("bob", "news")
    world.stops.fail_next("history", failure)
    number = client.send("history", channel="news")
    found = [message for message in client.take() if message.get("id") == number]
    assert [message["error"]["code"] for message in found] == ([] if reply is None else [reply])
    assert client.ended == end
    assert neighbour.ended == 0


def test_what_should_not_happen_is_reported_and_not_told() -> None:
    """The traceback goes to the sinks, the client gets a code that says to try again."""
    world = World(RECOVERABLE, debug_reasons=True)
    world.recorder.expects_errors = True
    client = world.connect("ann")
    world.stops.fail_next("history", RuntimeError("the secret of the house"))
    error = client.reply("history", channel="news")["error"]
    assert error == {"code": 100, "message": "internal server error", "temporary": True}
    [report] = world.recorder.of(InternalError)
    assert report.where == "history"
    assert "the secret of the house" in report.error


def test_without_a_reply_to_send_it_is_the_end() -> None:
    """With 3004: the client would wait for nothing, and may come back."""
    world = World()
    world.recorder.expects_errors = True
    client = world.plain("lobby")
    world.stops.fail_next("publish", RuntimeError("broken"))
    client.send_text("hello")
    assert client.ended == 3004


def test_an_error_without_a_reply_is_silent() -> None:
    """A lobby frame that is refused has no answer, and the session lives."""
    world = World()
    client = world.plain("lobby")
    world.stops.fail_next("publish", CommandError(BAD_REQUEST))
    client.send_text("hello")
    assert client.take() == []
    assert client.ended == 0
    assert world.recorder.of(CommandHandled)[-1].error == 107


def test_every_command_is_reported_once() -> None:
    """With its name, the label of its namespace and how it ended."""
    world = World(OPEN, {"ns": OPEN})
    world.tokens.connections.known["t"] = Identity(user="ann")
    client = world.open_session()
    client.ask("connect", token="t")
    client.ask("subscribe", channel="ns:x")
    client.outcome("publish", channel="nowhere:x", data=1)
    client.outcome("subscribe", channel="")
    assert [(e.method, e.namespace, e.error, e.user) for e in world.recorder.of(CommandHandled)] == [
        ("connect", "", 0, "ann"),
        ("subscribe", "ns", 0, "ann"),
        ("publish", "", 102, "ann"),
        ("subscribe", "", 3501, "ann"),
    ]


def test_commands_are_timed() -> None:
    """From their start to their end."""
    world = World()
    client = world.connect("ann")
    publish = world.node.channels.publish

    async def slowly(*args: object, **options: object) -> object:
        world.clock.advance(0.25)
        return await publish(*args, **options)  # type: ignore[arg-type]

    world.node.channels.publish = slowly  # type: ignore[method-assign,assignment]
    client.ask("publish", channel="news", data=1)
    assert world.recorder.of(CommandHandled)[-1].duration_s == 0.25


def test_commands_of_one_frame_are_answered_in_order() -> None:
    """Up to the one that ends the session; what follows it is not even looked at."""
    world = World()
    client = world.connect("ann")
    lines = [
        '{"id":11,"subscribe":{"channel":"a"}}',
        '{"id":12,"subscribe":{"channel":"a"}}',
        '{"id":13,"unsubscribe":{"channel":"a"}}',
        '{"id":14,"subscribe":{"channel":""}}',
        '{"id":15,"publish":{"channel":"b","data":1}}',
    ]
    client.send_text("\n".join(lines))
    assert [message["id"] for message in client.take()] == [11, 12, 13]
    assert client.ended == 3501
    handled = [event.method for event in world.recorder.of(CommandHandled)]
    assert handled == ["connect", "subscribe", "subscribe", "unsubscribe", "subscribe"]
    assert world.node.hub.statistics().subscriptions == 0
