"""Deadlines and limits of HTTP connections, without a network and with a clock by hand."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from beaconfire.base.clock import ManualClock
from beaconfire.base.timers import Timers
from beaconfire.base.units import Seconds, Size
from beaconfire.model.events import Event, LimitHit
from beaconfire.transports.http.limits import PIPELINE_MAX, HttpLimits
from beaconfire.transports.options import ServerOptions
from beaconfire.transports.reset import EXTENSION

OPTIONS = ServerOptions(handshake_timeout=Seconds(10), keep_alive_timeout=Seconds(60), header_max_size=Size(1000))
LATE = [LimitHit("server.handshake_timeout", "")]


class FakeStream(asyncio.Transport):
    """Records; closes when told to, and then ignores what is written, as real ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.aborted = False
        self.waiting = 0
        self.options: list[tuple[object, ...]] = []
        self.protocol: Any = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else default

    def fileno(self) -> int:
        return 1000

    def setsockopt(self, *option: object) -> None:
        if option[0] != socket.IPPROTO_TCP:
            self.options.append(option)

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    getsockname = getpeername

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self.closed:
            self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def get_write_buffer_size(self) -> int:
        return self.waiting

    @property
    def was_reset(self) -> bool:
        return self.aborted and self.options == [(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))]

    def is_closing(self) -> bool:
        return self.closed

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self.protocol
        return protocol

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Upgraded(asyncio.Protocol):
    """What stands in for the WebSocket."""

    def __init__(self, **uvicorn: object) -> None:
        self.received: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.received.append(data)


class World:
    """One connection to an application that answers every request after its body."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.events: list[Event] = []
        self.requests = 0
        self.scope: MutableMapping[str, Any] = {}
        config = uvicorn.Config(
            self._application,
            ws=Upgraded,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            timeout_keep_alive=3600,
        )
        config.load()
        guard = HttpLimits(OPTIONS, self.timers, self)
        self.stream = FakeStream()
        self.protocol = guard.protocol(config=config, server_state=ServerState(), app_state={})
        self.stream.protocol = self.protocol
        self.protocol.connection_made(self.stream)

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()

    async def receive(self, data: bytes) -> None:
        """Bytes arrive, and whatever they set off is finished."""
        self.protocol.data_received(data)
        for _ in range(10):
            await asyncio.sleep(0)

    async def _application(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        self.requests += 1
        self.scope = scope
        if scope["path"] != "/at-once":
            while (await receive()).get("more_body"):
                pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def scenario(run: Callable[[World], Awaitable[None]]) -> Callable[[], None]:
    """A test inside an event loop, ended as the loop would end the connection."""

    def test() -> None:
        async def inside() -> None:
            world = World()
            await run(world)
            world.protocol._unset_keepalive_if_required()

        asyncio.run(inside())

    test.__name__, test.__doc__ = run.__name__, run.__doc__
    return test


@scenario
async def test_silence_is_cut(world: World) -> None:
    """A connection that says nothing is closed after the handshake timeout, without a word."""
    world.advance(9.9)
    assert not world.stream.closed
    world.advance(0.1)
    assert (world.stream.closed, world.stream.written, world.events) == (True, b"", LATE)


@scenario
async def test_a_head_that_does_not_end_is_cut(world: World) -> None:
    """Bytes now and then do not help; the answer is 408."""
    for byte in b"GET / HTTP":
        await world.receive(bytes([byte]))
        world.advance(0.99)
    assert not world.stream.closed
    world.advance(0.1)
    assert world.stream.written.startswith(b"HTTP/1.1 408 ")
    assert (world.stream.closed, world.events) == (True, LATE)


@scenario
async def test_a_later_request_has_the_same_deadline(world: World) -> None:
    """From its first byte on; idling between requests is uvicorn's business."""
    await world.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    world.advance(1000)
    assert (world.requests, world.stream.closed) == (1, False)
    await world.receive(b"GET / HT")
    world.advance(9.9)
    await world.receive(b"TP/1.1\r\nHost: x\r\n\r\n")
    world.advance(1000)
    assert (world.requests, world.stream.closed, world.events) == (2, False, [])
    await world.receive(b"GET")
    world.advance(10)
    assert (world.stream.closed, world.events) == (True, LATE)


@scenario
async def test_requests_in_one_piece_make_no_timers(world: World) -> None:
    """The common case costs nothing."""
    world.advance(5)
    for _ in range(10):
        await world.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    world.advance(5)
    assert (world.requests, len(world.timers), world.stream.closed) == (10, 0, False)


@scenario
async def test_a_body_that_does_not_end_is_cut(world: World) -> None:
    """After the keep-alive timeout, however steadily it drips, and even if the answer was given before."""
    for path in (b"/", b"/at-once"):
        world = World()
        await world.receive(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(59):
            await world.receive(b"x")
            world.advance(1)
        assert not world.stream.closed
        world.advance(1)
        assert (world.stream.closed, world.events) == (True, [LimitHit("server.keep_alive_timeout", "")])
        world.protocol.connection_lost(None)


@scenario
async def test_line_ends_are_no_activity(world: World) -> None:
    """They are allowed between requests, but do not keep a connection."""
    await world.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    for _ in range(10):
        await world.receive(b"\r\n")
        world.advance(1)
    assert (world.stream.closed, world.events) == (True, LATE)


@scenario
async def test_large_heads_are_refused(world: World) -> None:
    """431 and the end, in one piece or in many, as soon as the limit is passed."""
    head = b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"c" * 1000 + b"\r\n\r\n"
    for step in (len(head), 100, 1):
        world = World()
        for at in range(0, len(head), step):
            if not world.stream.closed:
                await world.receive(head[at : at + step])
        assert world.stream.written.startswith(b"HTTP/1.1 431 ")
        assert (world.stream.closed, world.requests) == (True, 0)
        assert world.events == [LimitHit("server.header_max_size", "")]
        world.advance(1000)
        assert len(world.events) == 1


@scenario
async def test_heads_within_the_limit(world: World) -> None:
    """Up to the limit, whatever came before them on the connection or comes after them in the same piece."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\nCookie: " + b"c" * 800 + b"\r\n\r\n"
    await world.receive(head + b"x" * 5000)
    await world.receive(head + b"x" * 5000 + head[:500])
    await world.receive(head[500:] + b"x" * 4999)
    await world.receive(b"x" + head + b"x" * 5000)
    assert (world.requests, world.stream.closed, world.events) == (4, False, [])


@scenario
async def test_garbage_is_answered_as_before(world: World) -> None:
    """What is no HTTP gets uvicorn's own 400."""
    await world.receive(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
    assert world.stream.written.startswith(b"HTTP/1.1 400 ")
    world.advance(1000)
    assert (world.stream.closed, world.events) == (True, [])


@scenario
async def test_upgrade(world: World) -> None:
    """The successor gets the request and what came after it; the deadline and the parser are let go."""
    request = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    await world.receive(request[:20])
    await world.receive(request[20:] + b"early bytes")
    successor = world.stream.get_protocol()
    assert isinstance(successor, Upgraded)
    assert successor.received[0].startswith(b"GET /ws HTTP/1.1\r\n")
    assert successor.received[1:] == [b"early bytes"]
    assert vars(world.protocol)["parser"] is None
    world.advance(1000)
    assert (world.stream.closed, world.events) == (False, [])


H2C = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1000\r\n"


@scenario
async def test_an_ignored_upgrade_has_the_same_limits(world: World) -> None:
    """Deadlines for head and body, and the limit of the head, whose second reading does not count."""
    cookie = b"Cookie: " + b"c" * 800 + b"\r\n"
    for step in (2000, 100, 1):
        world = World()
        whole = H2C + cookie + b"\r\n" + b"x" * 1000
        for at in range(0, len(whole), step):
            await world.receive(whole[at : at + step])
        world.advance(1000)
        assert (world.requests, world.stream.closed, world.events) == (1, False, [])
        whole = H2C + cookie + cookie + b"\r\n"
        for at in range(0, len(whole), step):
            if not world.stream.closed:
                await world.receive(whole[at : at + step])
        assert world.stream.written.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 431 ")
        assert (world.stream.closed, world.events) == (True, [LimitHit("server.header_max_size", "")])
        world.protocol.connection_lost(None)
    world = World()
    await world.receive(H2C)
    world.advance(10)
    assert (world.stream.closed, world.events) == (True, LATE)
    world.protocol.connection_lost(None)
    world = World()
    await world.receive(H2C + b"\r\n")
    for _ in range(59):
        await world.receive(b"x")
        world.advance(1)
    assert not world.stream.closed
    world.advance(1)
    assert (world.stream.closed, world.events) == (True, [LimitHit("server.keep_alive_timeout", "")])
    world.protocol.connection_lost(None)


@scenario
async def test_a_lost_connection_leaves_no_timer(world: World) -> None:
    """Nothing fires for a connection that is gone."""
    await world.receive(b"GET / HT")
    world.protocol.connection_lost(None)
    world.advance(1000)
    assert (world.events, len(world.timers)) == ([], 0)


REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@scenario
async def test_some_pipelined_requests_are_answered(world: World) -> None:
    """One that is answered and as many as may wait for it."""
    await world.receive(REQUEST * (1 + PIPELINE_MAX))
    for _ in range(100):
        await asyncio.sleep(0)
    assert world.stream.written.count(b"HTTP/1.1 204 ") == world.requests == 1 + PIPELINE_MAX
    assert (world.stream.closed, world.events) == (False, [])


@scenario
async def test_more_pipelined_requests_are_cut(world: World) -> None:
    """One more, or thousands: nothing is kept and nothing is answered, and the running request is told."""
    for count in (2 + PIPELINE_MAX, 7000):
        world = World()
        await world.receive(REQUEST * count)
        assert (world.stream.closed, world.events) == (True, [LimitHit("http_pipeline_max", "")])
        assert not world.protocol.pipeline
        assert (world.requests <= 1, world.stream.written) == (True, b"")
        world.protocol.connection_lost(None)


@scenario
async def test_every_pipelined_request_learns_that_the_client_has_gone(world: World) -> None:
    """Not only the latest, so that none writes to a connection that is closed."""
    world.protocol.data_received(REQUEST * 3)
    world.protocol.connection_lost(None)
    for _ in range(30):
        await asyncio.sleep(0)
    assert world.stream.written == b""
    assert world.requests <= 1


@scenario
async def test_an_answer_that_nobody_reads_is_given_up(world: World) -> None:
    """After the keep-alive timeout the connection is aborted, because closing would wait for the reader."""
    await world.receive(REQUEST)
    world.protocol.pause_writing()
    world.advance(30)
    world.protocol.resume_writing()
    world.protocol.pause_writing()
    world.advance(59.9)
    assert not world.stream.closed
    world.advance(0.1)
    world.stream.waiting = 100
    world.protocol.timeout_keep_alive_handler()  # uvicorn's own timer, at the same moment
    assert (world.stream.was_reset, world.events) == (True, [LimitHit("server.keep_alive_timeout", "")])
    world.protocol.connection_lost(None)
    assert len(world.timers) == 0


@scenario
async def test_an_answer_that_nobody_reads_is_given_up_on_a_closing_connection_too(world: World) -> None:
    """However small it is, and although the connection is closed when it has been read; not if it was read in time."""
    for request in (REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), b"garbage\r\n\r\n"):
        for is_read in (True, False):
            world = World()
            world.stream.waiting = 100
            await world.receive(request)
            assert (world.stream.closed, world.stream.aborted) == (True, False)
            world.advance(59.9)
            if is_read:
                world.stream.waiting = 0
            world.advance(0.1)
            assert world.stream.was_reset is not is_read
            assert world.events == ([] if is_read else [LimitHit("server.keep_alive_timeout", "")])


@scenario
async def test_a_reader_that_stops_before_the_end_is_given_up_too(world: World) -> None:
    """It took so much of a large answer that writing may go on, but the connection is closing and there is a rest."""
    world.protocol.data_received(REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    world.stream.waiting = 100_000
    for _ in range(10):
        await asyncio.sleep(0)
    world.protocol.pause_writing()
    world.advance(30)
    world.stream.waiting = 1000
    world.protocol.resume_writing()
    world.advance(59.9)
    assert not world.stream.aborted
    world.advance(0.1)
    assert (world.stream.was_reset, world.events) == (True, [LimitHit("server.keep_alive_timeout", "")])


@scenario
async def test_an_application_may_reset_the_connection(world: World) -> None:
    """Of its request, through an extension."""
    await world.receive(REQUEST)
    world.scope["extensions"][EXTENSION]()
    assert world.stream.was_reset


@scenario
async def test_at_the_end_only_what_is_unread_is_reset(world: World) -> None:
    """Whether it waits in the buffer, or, as under TLS, where it cannot be seen."""
    await world.receive(REQUEST)
    world.protocol.reset_unread()
    assert not world.stream.closed
    world.protocol.pause_writing()
    world.protocol.reset_unread()
    assert world.stream.was_reset
    world.protocol.connection_lost(None)


@scenario
async def test_an_idle_connection_with_an_unread_answer_is_aborted(world: World) -> None:
    """A small answer stops nothing, but closing would wait for its reader as well."""
    await world.receive(REQUEST)
    world.stream.waiting = 100
    world.protocol.timeout_keep_alive_handler()
    assert (world.stream.was_reset, world.events) == (True, [LimitHit("server.keep_alive_timeout", "")])
    idle = World()
    await idle.receive(REQUEST)
    idle.protocol.timeout_keep_alive_handler()
    assert (idle.stream.closed, idle.stream.aborted, idle.events) == (True, False, [])
