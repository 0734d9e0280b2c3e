"""The stream as a transport: what it does while the server takes nothing, and at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

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
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.transports.port import Transport
from beaconfire.transports.streams.response_stream import ResponseStream, StreamCloseTimeout, StreamTraits
from beaconfire.transports.streams.wires import lines

PLAIN = StreamTraits("http_stream")
HEADERS = [(b"content-type", b"application/json")]


class RecordingSession:
    """A receiver that writes down what it is told."""

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
    """A stream with an ASGI server around it that can be made to wait."""

    def __init__(self, traits: StreamTraits = PLAIN) -> None:
        self.sent: list[dict[str, Any]] = []
        self.taking = asyncio.Event()
        self.taking.set()
        self.broken = False
        self.was_reset = False
        self.gone = asyncio.Event()
        self.session = RecordingSession()
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.events: list[Event] = []
        ending = StreamCloseTimeout(5.0, self.timers, self)
        wire = lines(JsonCodec())
        self.stream = ResponseStream(traits, wire, self._send, HEADERS, ending, self._reset, "secret")
        self.running = asyncio.create_task(self.stream.run(self._open_session, self._receive, b"opening", False))

    def _open_session(self, transport: Transport) -> RecordingSession:
        return self.session

    async def _send(self, message: Any) -> None:
        if self.broken:
            raise OSError("the client has gone")
        if not self.taking.is_set():
            await self.taking.wait()
        self.sent.append(dict(message))
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.gone.set()

    def _reset(self) -> None:
        """As the HTTP server: the request has lost its client, and nothing that is sent waits any longer."""
        self.was_reset = True
        self.taking.set()
        self.gone.set()

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()

    async def _receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


async def start(traits: StreamTraits = PLAIN) -> StreamHarness:
    harness = StreamHarness(traits)
    await asyncio.sleep(0)
    assert harness.session.received == [b"opening"]
    return harness


def test_the_head_goes_out_with_the_first_bytes() -> None:
    """Nothing is sent before there is anything to say, and then all of it at once, without a turn of the loop."""

    async def scenario() -> None:
        harness = await start(StreamTraits("sse", b":\n\n"))
        assert harness.sent == []
        harness.stream.write(b"one\n")
        assert harness.sent == [
            {"type": "http.response.start", "status": 200, "headers": HEADERS},
            {"type": "http.response.body", "body": b":\n\none\n", "more_body": True},
        ]
        harness.stream.close(CONNECTION_CLOSED, "")
        await harness.running

    asyncio.run(scenario())


def test_a_server_that_waits() -> None:
    """What is written meanwhile is kept and counted, sent in order, and then the session may write again."""

    async def scenario() -> None:
        harness = await start()
        harness.stream.write(b"one\n")
        harness.taking.clear()
        harness.stream.write(b"two\n")
        harness.stream.write(b"three\n")
        assert (harness.stream.writable, harness.stream.buffered_bytes) == (False, len(b"two\nthree\n"))
        harness.taking.set()
        await harness.session.writable_again.wait()
        assert (harness.stream.writable, harness.stream.buffered_bytes) == (True, 0)
        assert harness.body == b"one\ntwo\nthree\n"
        harness.stream.close(CONNECTION_CLOSED, "")
        await harness.running

    asyncio.run(scenario())


def test_closed_while_the_server_waits() -> None:
    """Everything written comes before the disconnect push, and then the response ends; later writes are dropped."""

    async def scenario() -> None:
        harness = await start()
        harness.taking.clear()
        harness.stream.write(b"one\n")
        harness.stream.close(SHUTDOWN, "shutdown")
        harness.stream.write(b"late\n")
        harness.stream.close(CONNECTION_CLOSED, "")
        harness.taking.set()
        await harness.running
        assert harness.body == b'one\n{"push":{"disconnect":{"code":3001,"reason":"shutdown","reconnect":true}}}\n'
        assert harness.sent[-1]["more_body"] is False
        assert harness.session.closed == [3000]
        assert not harness.session.writable_again.is_set()

    asyncio.run(scenario())


def test_a_server_that_breaks() -> None:
    """The stream is of no more use, and says so; whoever writes to it notices nothing."""

    async def scenario() -> None:
        harness = await start()
        harness.broken = True
        harness.stream.write(b"one\n")
        harness.stream.write(b"two\n")
        assert not harness.stream.writable
        harness.gone.set()
        await harness.running
        assert harness.session.closed == [3000]

    asyncio.run(scenario())


def test_a_server_that_breaks_while_it_waits() -> None:
    """As above."""

    async def scenario() -> None:
        harness = await start()
        harness.stream.write(b"one\n")
        harness.taking.clear()
        harness.stream.write(b"two\n")
        task = next(task for task in asyncio.all_tasks() if task not in (harness.running, asyncio.current_task()))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not harness.stream.writable
        harness.gone.set()
        await harness.running

    asyncio.run(scenario())


def test_reading_pauses() -> None:
    """Commands wait until the session reads on, and are refused if it ends instead."""

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
        harness.gone.set()
        await harness.running
        assert not await three
        assert not await harness.stream.receive(b"four", False)

    asyncio.run(scenario())


def test_listeners_are_refused_with_a_status() -> None:
    """If it is for good and nothing has been said yet; otherwise in the stream."""

    async def scenario() -> None:
        listener = StreamTraits("uni_sse", unidirectional=True)
        refused = await start(listener)
        refused.stream.close(INVALID_TOKEN, "invalid token")
        await refused.running
        assert refused.sent[0]["status"] == 401
        assert refused.sent[0]["headers"] == [(b"content-type", b"text/plain; charset=utf-8")]
        assert refused.body == b"3500 invalid token\n"
        later = await start(listener)
        later.stream.write(b"one\n")
        later.stream.close(INVALID_TOKEN, "invalid token")
        await later.running
        assert later.sent[0]["status"] == 200
        assert b'"code":3500' in later.body

    asyncio.run(scenario())


def test_ids_of_events() -> None:
    """Where events have ids, each write ends with one. What an ended session still writes has none, and is left out:
    it comes again when the listener resumes.
    """

    async def scenario() -> None:
        harness = await start(StreamTraits("uni_sse", has_ids=True))
        harness.stream.write(b"data: 1\n\n")
        harness.session.has_ended = True
        harness.stream.write(b"data: 2\n\n")
        assert harness.body == b'data: 1\nid: {"room":[5,"e"]}\n\n'
        harness.stream.close(CONNECTION_CLOSED, "")
        await harness.running

    asyncio.run(scenario())


def test_an_ended_stream_waits_for_its_client_and_no_longer_than_the_close_timeout() -> None:
    """Nobody reads the rest: the connection is reset, the limit is reported, and the session hears that it is over."""

    async def scenario() -> None:
        harness = await start()
        harness.taking.clear()
        harness.stream.write(b"one\n")
        harness.stream.close(SLOW, "slow")
        harness.advance(4.9)
        assert (harness.was_reset, harness.events) == (False, [])
        harness.advance(0.1)
        assert (harness.was_reset, harness.events) == (True, [LimitHit("http_stream.close_timeout", "")])
        await harness.running
        assert harness.session.closed == [CONNECTION_CLOSED.code]

    asyncio.run(scenario())


def test_a_client_that_reads_the_rest_in_time_is_not_cut() -> None:
    """It gets what was under way and the reason, and the timer is forgotten."""

    async def scenario() -> None:
        harness = await start()
        harness.taking.clear()
        harness.stream.write(b"one\n")
        harness.stream.write(b"two\n")
        harness.stream.close(SLOW, "slow")
        harness.advance(4.9)
        harness.taking.set()
        await harness.running
        harness.advance(60)
        assert harness.body.startswith(b"one\ntwo\n")
        assert b"3008" in harness.body
        assert (harness.was_reset, harness.events) == (False, [])

    asyncio.run(scenario())
