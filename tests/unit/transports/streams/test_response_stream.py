"""The stream as a transport: congestion, closing and pausing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import (
    CONNECTION_CLOSED,
    INVALID_TOKEN,
    SHUTDOWN,
    SLOW,
    DisconnectCode,
)
from beaconfire.base.timers import Timers
from beaconfire.model.events import Event, LimitHit
from beaconfire.model.handshake import Handshake
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.transports.port import Transport
from beaconfire.transports.streams.response_stream import (
    ResponseStream,
    StreamCloseTimeout,
    StreamConnection,
    StreamTraits,
)
from beaconfire.transports.streams.wires import lines
from tests.fakes.transport import HANDSHAKE
from tests.unit.kit import settle

PLAIN = StreamTraits("http_stream")
HEADERS = [(b"content-type", b"application/json")]


class RecordingSession:
    """A receiver that records all calls."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.writable_again = asyncio.Event()
        self.closed: list[int] = []
        self.has_ended = False

    def on_data(self, data: bytes, binary: bool) -> None:
        self.received.append(data)

    def on_control_frame(self, size: int) -> None: ...

    def on_transport_pong(self) -> None: ...

    def on_writable(self) -> None:
        self.writable_again.set()

    def positions(self) -> Mapping[str, tuple[int, str]] | None:
        return {"room": (5, "e")} if not self.has_ended else None

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        self.closed.append(code.code)


class StreamHarness:
    """A stream with an ASGI server that can be made to wait or fail.

    Our own server says whether it will wait. With `is_foreign`, the server is another one, of which nothing is known.
    """

    def __init__(self, traits: StreamTraits = PLAIN, is_foreign: bool = False) -> None:
        self.is_foreign = is_foreign
        self.sent: list[dict[str, Any]] = []
        self.accepting = asyncio.Event()
        self.accepting.set()
        self.fails = False
        self.waits_after = -1
        """The server waits after it has sent this many messages."""
        self.was_reset = False
        self.disconnected = asyncio.Event()
        self.session = RecordingSession()
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.events: list[Event] = []
        ending = StreamCloseTimeout(5.0, self.timers, self)
        wire = lines(JsonCodec())
        connection = StreamConnection(self._send, self._sends_at_once, self._reset)
        self.stream = ResponseStream(traits, wire, connection, HEADERS, ending, "secret")
        self.running = asyncio.create_task(
            self.stream.run(self._open_session, HANDSHAKE, self._receive, b"first", False)
        )

    def _open_session(self, transport: Transport, handshake: Handshake) -> RecordingSession:
        return self.session

    async def _send(self, message: Any) -> None:
        if self.fails:
            raise OSError("the client has disconnected")
        if not self.accepting.is_set():
            await self.accepting.wait()
        self.sent.append(dict(message))
        if len(self.sent) == self.waits_after:
            self.accepting.clear()
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.disconnected.set()

    def _sends_at_once(self) -> bool:
        return not self.is_foreign and self.accepting.is_set()

    def _reset(self) -> None:
        """Acts as the HTTP server: the client is disconnected, and no `send` waits any longer."""
        self.was_reset = True
        self.accepting.set()
        self.disconnected.set()

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()

    async def _receive(self) -> Any:
        await self.disconnected.wait()
        return {"type": "http.disconnect"}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


async def start(traits: StreamTraits = PLAIN, is_foreign: bool = False) -> StreamHarness:
    harness = StreamHarness(traits, is_foreign)
    await asyncio.sleep(0)
    assert harness.session.received == [b"first"]
    return harness


def test_head_is_sent_with_the_first_bytes() -> None:
    """Nothing is sent before the first write. Then both are sent at once, without a turn of the event loop."""

    async def scenario() -> None:
        harness = await start(StreamTraits("sse", b":\n\n"))
        assert harness.sent == []
        harness.stream.write([b"one\n"])
        assert harness.sent == [
            {"type": "http.response.start", "status": 200, "headers": HEADERS},
            {"type": "http.response.body", "body": b":\n\none\n", "more_body": True},
        ]
        harness.stream.close(CONNECTION_CLOSED, "")
        await harness.running

    asyncio.run(scenario())


def test_writes_are_buffered_while_the_server_waits() -> None:
    """They are counted and then sent in order, and the session is informed that it may write again."""

    async def scenario() -> None:
        harness = await start()
        harness.stream.write([b"one\n"])
        harness.accepting.clear()
        harness.stream.write([b"two\n"])
        harness.stream.write([b"three\n"])
        assert (harness.stream.writable, harness.stream.buffered_bytes) == (False, len(b"two\nthree\n"))
        harness.accepting.set()
        await harness.session.writable_again.wait()
        assert (harness.stream.writable, harness.stream.buffered_bytes) == (True, 0)
        assert harness.body == b"one\ntwo\nthree\n"
        harness.stream.close(CONNECTION_CLOSED, "")
        await harness.running

    asyncio.run(scenario())


@pytest.mark.parametrize("is_foreign", [False, True])
def test_close_while_the_server_waits(is_foreign: bool) -> None:
    """Earlier writes are sent before the disconnect push, and then the response ends. Later writes are dropped."""

    async def scenario() -> None:
        harness = await start(is_foreign=is_foreign)
        harness.accepting.clear()
        harness.stream.write([b"one\n"])
        harness.stream.close(SHUTDOWN, "shutdown")
        harness.stream.write([b"late\n"])
        harness.stream.close(CONNECTION_CLOSED, "")
        harness.accepting.set()
        await harness.running
        assert harness.body == b'one\n{"push":{"disconnect":{"code":3001,"reason":"shutdown","reconnect":true}}}\n'
        assert harness.sent[-1]["more_body"] is False
        assert harness.session.closed == [3000]
        assert not harness.session.writable_again.is_set()

    asyncio.run(scenario())


def test_other_servers_send_in_a_task() -> None:
    """Until the task is done, the stream is not writable and later writes wait. They are sent in order."""

    async def scenario() -> None:
        harness = await start(StreamTraits("sse", b":\n\n"), is_foreign=True)
        harness.stream.write([b"one\n"])
        harness.stream.write([b"two\n"])
        assert (harness.stream.writable, harness.stream.buffered_bytes) == (False, len(b"one\ntwo\n"))
        await harness.session.writable_again.wait()
        assert (harness.stream.writable, harness.stream.buffered_bytes) == (True, 0)
        assert [message["type"] for message in harness.sent] == ["http.response.start", *["http.response.body"] * 2]
        assert harness.body == b":\n\none\ntwo\n"
        harness.stream.close(CONNECTION_CLOSED, "")
        await harness.running

    asyncio.run(scenario())


def test_server_that_waits_after_the_head() -> None:
    """The rest of the write is sent in a task, once and after the head."""

    async def scenario() -> None:
        harness = await start()
        harness.waits_after = 1
        harness.stream.write([b"one\n"])
        assert [message["type"] for message in harness.sent] == ["http.response.start"]
        assert (harness.stream.writable, harness.stream.buffered_bytes) == (False, len(b"one\n"))
        harness.accepting.set()
        await harness.session.writable_again.wait()
        assert [message["type"] for message in harness.sent] == ["http.response.start", "http.response.body"]
        harness.stream.close(CONNECTION_CLOSED, "")
        await harness.running

    asyncio.run(scenario())


@pytest.mark.parametrize("is_foreign", [False, True])
def test_exception_in_send_ends_the_stream(is_foreign: bool) -> None:
    """The stream is not writable any more. Writing to it raises no exception."""

    async def scenario() -> None:
        harness = await start(is_foreign=is_foreign)
        harness.fails = True
        harness.stream.write([b"one\n"])
        harness.stream.write([b"two\n"])
        await settle()
        assert not harness.stream.writable
        harness.disconnected.set()
        await harness.running
        assert harness.session.closed == [3000]

    asyncio.run(scenario())


def test_exception_in_a_suspended_send_ends_the_stream() -> None:
    """As above, in the task that finishes the `send`."""

    async def scenario() -> None:
        harness = await start()
        harness.stream.write([b"one\n"])
        harness.accepting.clear()
        harness.stream.write([b"two\n"])
        task = next(task for task in asyncio.all_tasks() if task not in (harness.running, asyncio.current_task()))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not harness.stream.writable
        harness.disconnected.set()
        await harness.running

    asyncio.run(scenario())


def test_commands_wait_while_reading_is_paused() -> None:
    """They are refused if the session ends before it resumes reading."""

    async def scenario() -> None:
        harness = await start()
        assert await harness.stream.receive(b"one", False)
        harness.stream.pause_reading()
        harness.stream.pause_reading()
        two = asyncio.create_task(harness.stream.receive(b"two", False))
        await asyncio.sleep(0)
        assert harness.session.received[1:] == [b"one"]
        harness.stream.resume_reading()
        assert await two
        assert harness.session.received[1:] == [b"one", b"two"]
        harness.stream.pause_reading()
        three = asyncio.create_task(harness.stream.receive(b"three", False))
        await asyncio.sleep(0)
        harness.disconnected.set()
        await harness.running
        assert not await three
        assert not await harness.stream.receive(b"four", False)

    asyncio.run(scenario())


@pytest.mark.parametrize("is_foreign", [False, True])
def test_unidirectional_clients_are_refused_with_a_status(is_foreign: bool) -> None:
    """If the code is final and nothing was sent before. Otherwise the code is sent in the stream."""

    async def scenario() -> None:
        traits = StreamTraits("uni_sse", unidirectional=True)
        refused = await start(traits, is_foreign)
        refused.stream.close(INVALID_TOKEN, "invalid token")
        await refused.running
        assert refused.sent[0]["status"] == 401
        assert refused.sent[0]["headers"] == [(b"content-type", b"text/plain; charset=utf-8")]
        assert refused.body == b"3500 invalid token\n"
        later = await start(traits, is_foreign)
        later.stream.write([b"one\n"])
        later.stream.close(INVALID_TOKEN, "invalid token")
        await later.running
        assert later.sent[0]["status"] == 200
        assert b'"code":3500' in later.body

    asyncio.run(scenario())


def test_each_write_ends_with_an_event_id() -> None:
    """A write of an ended session has no id and is dropped: the client gets it when it recovers."""

    async def scenario() -> None:
        harness = await start(StreamTraits("uni_sse", has_ids=True))
        harness.stream.write([b"data: 1\n\n"])
        harness.session.has_ended = True
        harness.stream.write([b"data: 2\n\n"])
        assert harness.body == b'data: 1\nid: {"room":[5,"e"]}\n\n'
        harness.stream.close(CONNECTION_CLOSED, "")
        await harness.running

    asyncio.run(scenario())


def test_close_timeout_resets_an_unread_stream() -> None:
    """The limit is reported, and the session is closed."""

    async def scenario() -> None:
        harness = await start()
        harness.accepting.clear()
        harness.stream.write([b"one\n"])
        harness.stream.close(SLOW, "slow")
        harness.advance(4.9)
        assert (harness.was_reset, harness.events) == (False, [])
        harness.advance(0.1)
        assert (harness.was_reset, harness.events) == (True, [LimitHit("http_stream.close_timeout", "")])
        await harness.running
        assert harness.session.closed == [CONNECTION_CLOSED.code]

    asyncio.run(scenario())


def test_stream_that_is_read_in_time_is_not_reset() -> None:
    """The client gets all writes and the disconnect push, and the timer is cancelled."""

    async def scenario() -> None:
        harness = await start()
        harness.accepting.clear()
        harness.stream.write([b"one\n"])
        harness.stream.write([b"two\n"])
        harness.stream.close(SLOW, "slow")
        harness.advance(4.9)
        harness.accepting.set()
        await harness.running
        harness.advance(60)
        assert harness.body.startswith(b"one\ntwo\n")
        assert b"3008" in harness.body
        assert (harness.was_reset, harness.events) == (False, [])

    asyncio.run(scenario())
