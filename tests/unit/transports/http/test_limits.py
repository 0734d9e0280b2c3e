"""Deadlines and limits of HTTP connections, without a network and with a manual clock."""

from __future__ import annotations

import asyncio

from beaconfire.model.events import LimitHit
from beaconfire.transports.http.limits import PIPELINE_MAX
from beaconfire.transports.reset import EXTENSION
from tests.unit.transports.http.support import FakeWebSocketProtocol, HttpHarness, scenario

TIMEOUT = [LimitHit("server.handshake_timeout", "")]


@scenario
async def test_silent_connection_is_closed(harness: HttpHarness) -> None:
    """After the handshake timeout, without a response."""
    harness.advance(9.9)
    assert not harness.stream.closed
    harness.advance(0.1)
    assert (harness.stream.closed, harness.stream.written, harness.events) == (True, b"", TIMEOUT)


@scenario
async def test_slow_head_gets_408(harness: HttpHarness) -> None:
    """Single bytes do not extend the timeout."""
    for byte in b"GET / HTTP":
        await harness.receive(bytes([byte]))
        harness.advance(0.99)
    assert not harness.stream.closed
    harness.advance(0.1)
    assert harness.stream.written.startswith(b"HTTP/1.1 408 ")
    assert (harness.stream.closed, harness.events) == (True, TIMEOUT)


@scenario
async def test_later_requests_have_the_same_deadline(harness: HttpHarness) -> None:
    """From the first byte of the request. uvicorn limits the idle time between requests."""
    await harness.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    harness.advance(1000)
    assert (harness.requests, harness.stream.closed) == (1, False)
    await harness.receive(b"GET / HT")
    harness.advance(9.9)
    await harness.receive(b"TP/1.1\r\nHost: x\r\n\r\n")
    harness.advance(1000)
    assert (harness.requests, harness.stream.closed, harness.events) == (2, False, [])
    await harness.receive(b"GET")
    harness.advance(10)
    assert (harness.stream.closed, harness.events) == (True, TIMEOUT)


@scenario
async def test_requests_in_one_read_make_no_timers(harness: HttpHarness) -> None:
    """The common case has no cost for timers."""
    harness.advance(5)
    for _ in range(10):
        await harness.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    harness.advance(5)
    assert (harness.requests, len(harness.timers), harness.stream.closed) == (10, 0, False)


@scenario
async def test_slow_body_is_disconnected(harness: HttpHarness) -> None:
    """After the keep-alive timeout, even if single bytes arrive steadily or the response was sent before."""
    for path in (b"/", b"/at-once"):
        harness = HttpHarness()
        await harness.receive(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(59):
            await harness.receive(b"x")
            harness.advance(1)
        assert not harness.stream.closed
        harness.advance(1)
        assert (harness.stream.closed, harness.events) == (True, [LimitHit("server.keep_alive_timeout", "")])
        harness.protocol.connection_lost(None)


@scenario
async def test_line_ends_are_not_activity(harness: HttpHarness) -> None:
    """They are allowed between requests, but do not keep a connection open."""
    await harness.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    for _ in range(10):
        await harness.receive(b"\r\n")
        harness.advance(1)
    assert (harness.stream.closed, harness.events) == (True, TIMEOUT)


@scenario
async def test_large_heads_are_refused(harness: HttpHarness) -> None:
    """With 431 and a close as soon as the limit is exceeded, in one read or in several."""
    head = b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"c" * 1000 + b"\r\n\r\n"
    for step in (len(head), 100, 1):
        harness = HttpHarness()
        for at in range(0, len(head), step):
            if not harness.stream.closed:
                await harness.receive(head[at : at + step])
        assert harness.stream.written.startswith(b"HTTP/1.1 431 ")
        assert (harness.stream.closed, harness.requests) == (True, 0)
        assert harness.events == [LimitHit("server.header_max_size", "")]
        harness.advance(1000)
        assert len(harness.events) == 1


@scenario
async def test_heads_within_the_limit_are_accepted(harness: HttpHarness) -> None:
    """Independent of earlier bytes on the connection and later bytes in the same read."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\nCookie: " + b"c" * 800 + b"\r\n\r\n"
    await harness.receive(head + b"x" * 5000)
    await harness.receive(head + b"x" * 5000 + head[:500])
    await harness.receive(head[500:] + b"x" * 4999)
    await harness.receive(b"x" + head + b"x" * 5000)
    assert (harness.requests, harness.stream.closed, harness.events) == (4, False, [])


@scenario
async def test_malformed_bytes_get_400(harness: HttpHarness) -> None:
    """With uvicorn's own response."""
    await harness.receive(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
    assert harness.stream.written.startswith(b"HTTP/1.1 400 ")
    harness.advance(1000)
    assert (harness.stream.closed, harness.events) == (True, [])


@scenario
async def test_upgrade_passes_the_connection_on(harness: HttpHarness) -> None:
    """The successor gets the request and the bytes after it. The deadline and the parser are released."""
    request = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    await harness.receive(request[:20])
    await harness.receive(request[20:] + b"early bytes")
    successor = harness.stream.get_protocol()
    assert isinstance(successor, FakeWebSocketProtocol)
    assert successor.received[0].startswith(b"GET /ws HTTP/1.1\r\n")
    assert successor.received[1:] == [b"early bytes"]
    assert vars(harness.protocol)["parser"] is None
    harness.advance(1000)
    assert (harness.stream.closed, harness.events) == (False, [])


H2C = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1000\r\n"


@scenario
async def test_ignored_upgrade_has_the_same_limits(harness: HttpHarness) -> None:
    """Deadlines for head and body, and the size limit of the head. The second parsing of the head does not count."""
    cookie = b"Cookie: " + b"c" * 800 + b"\r\n"
    for step in (2000, 100, 1):
        harness = HttpHarness()
        whole = H2C + cookie + b"\r\n" + b"x" * 1000
        for at in range(0, len(whole), step):
            await harness.receive(whole[at : at + step])
        harness.advance(1000)
        assert (harness.requests, harness.stream.closed, harness.events) == (1, False, [])
        whole = H2C + cookie + cookie + b"\r\n"
        for at in range(0, len(whole), step):
            if not harness.stream.closed:
                await harness.receive(whole[at : at + step])
        assert harness.stream.written.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 431 ")
        assert (harness.stream.closed, harness.events) == (True, [LimitHit("server.header_max_size", "")])
        harness.protocol.connection_lost(None)
    harness = HttpHarness()
    await harness.receive(H2C)
    harness.advance(10)
    assert (harness.stream.closed, harness.events) == (True, TIMEOUT)
    harness.protocol.connection_lost(None)
    harness = HttpHarness()
    await harness.receive(H2C + b"\r\n")
    for _ in range(59):
        await harness.receive(b"x")
        harness.advance(1)
    assert not harness.stream.closed
    harness.advance(1)
    assert (harness.stream.closed, harness.events) == (True, [LimitHit("server.keep_alive_timeout", "")])
    harness.protocol.connection_lost(None)


@scenario
async def test_lost_connection_leaves_no_timer(harness: HttpHarness) -> None:
    """No event is emitted for a lost connection."""
    await harness.receive(b"GET / HT")
    harness.protocol.connection_lost(None)
    harness.advance(1000)
    assert (harness.events, len(harness.timers)) == ([], 0)


REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@scenario
async def test_pipelined_requests_up_to_the_limit_get_responses(harness: HttpHarness) -> None:
    """One active request and `PIPELINE_MAX` waiting ones."""
    await harness.receive(REQUEST * (1 + PIPELINE_MAX))
    for _ in range(100):
        await asyncio.sleep(0)
    assert harness.stream.written.count(b"HTTP/1.1 204 ") == harness.requests == 1 + PIPELINE_MAX
    assert (harness.stream.closed, harness.events) == (False, [])


@scenario
async def test_pipelined_requests_beyond_the_limit_close_the_connection(harness: HttpHarness) -> None:
    """Nothing is kept and no response is sent, and the active request is informed."""
    for count in (2 + PIPELINE_MAX, 7000):
        harness = HttpHarness()
        await harness.receive(REQUEST * count)
        assert (harness.stream.closed, harness.events) == (True, [LimitHit("http_pipeline_max", "")])
        assert not harness.protocol.pipeline
        assert (harness.requests <= 1, harness.stream.written) == (True, b"")
        harness.protocol.connection_lost(None)


@scenario
async def test_every_pipelined_request_is_informed_of_a_lost_connection(harness: HttpHarness) -> None:
    """Not only the latest, so that no request writes to the closed connection."""
    harness.protocol.data_received(REQUEST * 3)
    harness.protocol.connection_lost(None)
    for _ in range(30):
        await asyncio.sleep(0)
    assert harness.stream.written == b""
    assert harness.requests <= 1


@scenario
async def test_unread_response_resets_the_connection(harness: HttpHarness) -> None:
    """After the keep-alive timeout: a close would wait for the client."""
    await harness.receive(REQUEST)
    harness.protocol.pause_writing()
    harness.advance(30)
    harness.protocol.resume_writing()
    harness.protocol.pause_writing()
    harness.advance(59.9)
    assert not harness.stream.closed
    harness.advance(0.1)
    harness.stream.waiting = 100
    harness.protocol.timeout_keep_alive_handler()  # uvicorn's own timer, at the same moment
    assert (harness.stream.was_reset, harness.events) == (True, [LimitHit("server.keep_alive_timeout", "")])
    harness.protocol.connection_lost(None)
    assert len(harness.timers) == 0


@scenario
async def test_unread_response_resets_a_closing_connection(harness: HttpHarness) -> None:
    """Also a small response, and one after which the connection closes. Not if it is read in time."""
    for request in (REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), b"garbage\r\n\r\n"):
        for is_read in (True, False):
            harness = HttpHarness()
            harness.stream.waiting = 100
            await harness.receive(request)
            assert (harness.stream.closed, harness.stream.aborted) == (True, False)
            harness.advance(59.9)
            if is_read:
                harness.stream.waiting = 0
            harness.advance(0.1)
            assert harness.stream.was_reset is not is_read
            assert harness.events == ([] if is_read else [LimitHit("server.keep_alive_timeout", "")])


@scenario
async def test_partly_read_response_resets_a_closing_connection(harness: HttpHarness) -> None:
    """The client has read enough for writing to resume, but not all, and the connection is closing."""
    harness.protocol.data_received(REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    harness.stream.waiting = 100_000
    for _ in range(10):
        await asyncio.sleep(0)
    harness.protocol.pause_writing()
    harness.advance(30)
    harness.stream.waiting = 1000
    harness.protocol.resume_writing()
    harness.advance(59.9)
    assert not harness.stream.aborted
    harness.advance(0.1)
    assert (harness.stream.was_reset, harness.events) == (True, [LimitHit("server.keep_alive_timeout", "")])


@scenario
async def test_application_can_reset_the_connection(harness: HttpHarness) -> None:
    """By an extension in the scope of its request."""
    await harness.receive(REQUEST)
    harness.scope["extensions"][EXTENSION]()
    assert harness.stream.was_reset


@scenario
async def test_reset_unread_resets_only_connections_with_unsent_data(harness: HttpHarness) -> None:
    """In the buffer, or not visible, as under TLS."""
    await harness.receive(REQUEST)
    harness.protocol.reset_unread()
    assert not harness.stream.closed
    harness.protocol.pause_writing()
    harness.protocol.reset_unread()
    assert harness.stream.was_reset
    harness.protocol.connection_lost(None)


@scenario
async def test_idle_connection_with_an_unread_response_is_reset(harness: HttpHarness) -> None:
    """A small response does not pause writing, but a close would wait for the client as well."""
    await harness.receive(REQUEST)
    harness.stream.waiting = 100
    harness.protocol.timeout_keep_alive_handler()
    assert (harness.stream.was_reset, harness.events) == (True, [LimitHit("server.keep_alive_timeout", "")])
    idle = HttpHarness()
    await idle.receive(REQUEST)
    idle.protocol.timeout_keep_alive_handler()
    assert (idle.stream.closed, idle.stream.aborted, idle.events) == (True, False, [])
