"""The WebSocket of an ASGI server as a transport: sending, congestion, closing and pausing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from beaconfire.base.errors import CONNECTION_CLOSED, SHUTDOWN, WRITE_ERROR
from beaconfire.model.events import InternalError

from .server import SIZE_LIMIT, FakeServer, frame, message, settle

Scenario = Callable[[FakeServer], Coroutine[Any, Any, None]]


def run(scenario: Scenario, expects_errors: bool = False) -> None:
    async def with_server() -> None:
        server = FakeServer(expects_errors)
        await settle()
        await scenario(server)
        server.disconnect()
        server.accepts_messages.set()
        await settle()
        assert server.running.done()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(with_server())


def test_each_message_is_sent_once_and_in_order() -> None:
    """Frames are not joined: each of their messages is one `websocket.send`, as text or as bytes."""

    async def scenario(server: FakeServer) -> None:
        server.connection.write([frame("1", "2"), frame("3")])
        server.connection.write([frame("4")])
        await settle()
        assert server.sent == [message(text) for text in "1234"]
        assert server.is_writable()
        assert server.connection.buffered_bytes == 0

    run(scenario)


def test_a_server_that_waits_makes_the_connection_unwritable() -> None:
    """No caller waits. What is written meanwhile is counted, and sent later. Then the session is informed."""

    async def scenario(server: FakeServer) -> None:
        server.accepts_messages.clear()
        server.connection.write([frame("one"), frame("two")])
        await settle()
        assert server.connection.buffered_bytes == 6
        server.connection.write([frame("three")])
        assert server.connection.buffered_bytes == 11
        assert not server.is_writable()
        assert server.session.writable == 0
        server.accepts_messages.set()
        await settle()
        assert server.sent == [message(text) for text in ("one", "two", "three")]
        assert server.is_writable()
        assert server.session.writable == 1

    run(scenario)


def test_messages_reach_the_session_with_their_kind() -> None:
    """Also from servers that set both fields, one of them to None."""

    async def scenario(server: FakeServer) -> None:
        server.say("烽火")
        server.incoming.put_nowait({"type": "websocket.receive", "text": None, "bytes": b"\xff"})
        server.incoming.put_nowait({"type": "websocket.receive", "text": "x", "bytes": None})
        await settle()
        assert server.session.received == [("烽火".encode(), False), (b"\xff", True), (b"x", False)]

    run(scenario)


def test_a_large_message_closes_the_connection_with_1009() -> None:
    """The limit counts bytes, and is reported. A message of exactly the limit is delivered."""

    async def scenario(server: FakeServer) -> None:
        server.say("x" * SIZE_LIMIT)
        server.say("烽" * (SIZE_LIMIT // 3 + 1))
        server.say("later")
        await settle()
        assert [len(data) for data, _ in server.session.received] == [SIZE_LIMIT]
        assert server.sent == [{"type": "websocket.close", "code": 1009, "reason": "message exceeds 100 bytes"}]
        assert server.events.limits() == ["websocket.message_size_limit"]

    run(scenario)


def test_close_follows_what_was_written() -> None:
    """Nothing is sent or received afterwards, and a second close has no effect."""

    async def scenario(server: FakeServer) -> None:
        server.connection.write([frame("last")])
        server.connection.close(SHUTDOWN, "shutdown")
        server.connection.close(WRITE_ERROR, "again")
        server.connection.write([frame("dropped")])
        server.say("ignored")
        await settle()
        assert server.sent == [message("last"), {"type": "websocket.close", "code": 3001, "reason": "shutdown"}]
        assert not server.is_writable()
        assert server.session.received == []
        assert server.session.closed == []
        server.disconnect()
        await settle()
        assert server.session.closed == [CONNECTION_CLOSED.code]

    run(scenario)


def test_code_3000_becomes_a_normal_closure() -> None:
    """ASGI cannot close a connection without a close frame."""

    async def scenario(server: FakeServer) -> None:
        server.connection.close(CONNECTION_CLOSED, "")
        await settle()
        assert server.sent == [{"type": "websocket.close", "code": 1000, "reason": ""}]

    run(scenario)


def test_long_reason_is_shortened() -> None:
    """To the 123 bytes of a close frame, never inside a character."""

    async def scenario(server: FakeServer) -> None:
        server.connection.close(SHUTDOWN, "x" + "烽" * 100)
        await settle()
        assert server.sent[0]["reason"] == "x" + "烽" * 40

    run(scenario)


def test_a_peer_that_does_not_answer_the_close_is_given_up() -> None:
    """After the close timeout, which is reported. The application returns although the server reports nothing."""

    async def scenario(server: FakeServer) -> None:
        server.accepts_messages.clear()
        server.connection.close(SHUTDOWN, "shutdown")
        server.advance(4.9)
        await settle()
        assert not server.running.done()
        server.advance(0.2)
        await settle()
        assert server.running.done()
        assert server.events.limits() == ["websocket.close_timeout"]
        assert server.session.closed == [CONNECTION_CLOSED.code]

    run(scenario)


def test_a_peer_that_reads_nothing_is_given_up() -> None:
    """After the write timeout the session ends with 3009, once."""

    async def scenario(server: FakeServer) -> None:
        server.accepts_messages.clear()
        server.connection.write([frame("unread")])
        server.advance(9.9)
        await settle()
        assert server.session.closed == []
        server.advance(0.2)
        await settle()
        assert server.running.done()
        assert server.events.limits() == ["websocket.write_timeout"]
        assert server.session.closed == [WRITE_ERROR.code]

    run(scenario)


def test_a_slow_peer_that_reads_is_not_given_up() -> None:
    """One message within each write timeout is progress."""

    async def scenario(server: FakeServer) -> None:
        for _ in range(3):
            server.accepts_messages.clear()
            server.connection.write([frame("slow")])
            server.advance(6)
            await settle()
            server.accepts_messages.set()
            await settle()
        server.advance(60)
        assert server.session.closed == []
        assert server.events.limits() == []

    run(scenario)


def test_failed_send_ends_the_session() -> None:
    """Servers raise exceptions of their own if the client has disconnected."""

    async def scenario(server: FakeServer) -> None:
        server.send_error = OSError("gone")
        server.connection.write([frame("lost")])
        await settle()
        assert server.running.done()
        assert server.session.closed == [CONNECTION_CLOSED.code]

    run(scenario)


def test_failed_receive_ends_the_session() -> None:
    """As a disconnect does."""

    async def scenario(server: FakeServer) -> None:
        server.incoming.put_nowait(RuntimeError("gone"))
        await settle()
        assert server.running.done()
        assert server.session.closed == [CONNECTION_CLOSED.code]

    run(scenario)


def test_cancelled_request_ends_the_session() -> None:
    """A server cancels its requests when it stops."""

    async def scenario(server: FakeServer) -> None:
        server.running.cancel()
        await settle()
        assert server.running.cancelled()
        assert server.session.closed == [CONNECTION_CLOSED.code]

    run(scenario)


def test_paused_session_gets_no_messages() -> None:
    """The server then stops reading from the client. A close resumes reading."""

    async def scenario(server: FakeServer) -> None:
        server.connection.pause_reading()
        server.say("one")
        await settle()
        server.say("two")
        await settle()
        assert len(server.session.received) == 1, "`receive` was waiting already"
        server.connection.resume_reading()
        await settle()
        assert [data for data, _ in server.session.received] == [b"one", b"two"]
        server.connection.pause_reading()
        server.connection.close(SHUTDOWN, "")
        server.disconnect()
        await settle()
        assert server.running.done()

    run(scenario)


def test_a_ping_is_answered_at_once() -> None:
    """The pings of the ASGI server find dead peers: a session must not end for want of a pong."""

    async def scenario(server: FakeServer) -> None:
        server.connection.ping()
        assert server.session.pongs == 1
        assert server.sent == []

    run(scenario)


def test_bug_in_the_session_closes_with_1011() -> None:
    """It is reported, and the server sees no exception."""

    async def scenario(server: FakeServer) -> None:
        server.say("bug")
        await settle()
        assert server.sent == [{"type": "websocket.close", "code": 1011, "reason": "internal server error"}]
        assert len(server.events.of(InternalError)) == 1

    run(scenario, expects_errors=True)


def test_an_idle_connection_has_no_task_of_its_own() -> None:
    """Only the task of the server, which waits in `receive`."""

    async def scenario(server: FakeServer) -> None:
        server.connection.write([frame("hello")])
        await settle()
        assert asyncio.all_tasks() == {asyncio.current_task(), server.running}

    run(scenario)
