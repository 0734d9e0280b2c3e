"""The direct path and the ASGI path of the server API must behave in the same way.

Each case is sent to two whole servers: one with the direct path and one with ASGI only. The written bytes, the closing
of the connection and the counted metrics must be the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast
from unittest.mock import patch

import pytest
import uvicorn
from msgspec import structs
from uvicorn.server import ServerState

from beaconfire.api.methods import METHODS
from beaconfire.base.clock import ManualClock
from beaconfire.config import load
from beaconfire.engines.memory import memory_engine
from beaconfire.engines.port import Engine, PresenceStats
from beaconfire.observe.http import DirectPostObserver
from beaconfire.server.app import App
from beaconfire.server.engines import ENGINES, EngineRow, Needs
from beaconfire.transports.http.limits import PIPELINE_MAX, HttpLimits
from tests.unit.transports.http.support import FakeHttpStream

KEY = b"X-API-Key: right\r\n"
BODY = b'{"channel":"chat","data":{"n": 1.50}}'
COUNTED = ("http_requests_total", "beaconfire_limit_hits_total", "beaconfire_api_calls_total")


def request(
    body: bytes = BODY, headers: bytes = KEY, target: bytes = b"/api/publish", start: bytes = b"POST %b HTTP/1.1"
) -> bytes:
    head = start % target + b"\r\nHost: x\r\n" + headers
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


OLD = b"POST %b HTTP/1.0"
GET_HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /api/publish HTTP/1.1\r\nHost: x\r\n" + KEY + b"Transfer-Encoding: chunked\r\n\r\n"


def make_suspending_engine(needs: Needs) -> Engine:
    """The memory engine, except that it says of itself that it may suspend."""
    return structs.replace(memory_engine(needs.runtime.timers.clock), suspends=True)


SUSPENDING = EngineRow(make_suspending_engine, "An engine for tests.")


class ServerHarness:
    """A whole server and one connection to it."""

    def __init__(self, direct: bool, settings: dict[str, str], engine_suspends: bool = False) -> None:
        """`engine_suspends` is what the engine says of itself: the server may run its calls in one step if it does not
        suspend."""
        self.clock = ManualClock()
        settings = {"api.keys": '["right", "old"]', "api.request_max_size": "2000", **settings}
        with patch.dict(cast(dict[str, EngineRow], ENGINES), {"memory": SUSPENDING} if engine_suspends else {}):
            self.app = App(load(None, {}, settings), self.clock)
        self.state = ServerState()
        self.config = uvicorn.Config(
            self.app.asgi, ws=self.app.acceptor.upgrade, interface="asgi3", lifespan="off", log_config=None,  # type: ignore[arg-type]
            timeout_keep_alive=3600, proxy_headers=bool(self.app.config.server.trusted_proxies),
            forwarded_allow_ips=self.app.config.server.trusted_proxies,
        )  # fmt: skip
        self.config.load()
        guard = HttpLimits(self.app.config.server, self.app.timers, self.app.events)
        self._make = self.app.http if direct else guard.protocol
        self.stream = FakeHttpStream()

    async def open(self) -> ServerHarness:
        await self.app.node.start()
        protocol = self._make(config=self.config, server_state=self.state, app_state={})
        self.stream.protocol = protocol
        protocol.connection_made(self.stream)
        return self

    async def receive(self, *pieces: bytes) -> None:
        """Passes each piece as one read, and waits until it is handled."""
        for piece in pieces:
            if not self.stream.closed:
                self.stream.protocol.data_received(piece)
            await settle()

    async def advance(self, seconds: float, steps: int = 1) -> None:
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            self.app.timers.run_due()
            await settle()

    def counts(self) -> list[str]:
        lines = self.app.metrics.exposition().decode().splitlines()
        return [line for line in lines if line.startswith(COUNTED) and not line.endswith(" 0.0")]

    async def close(self) -> tuple[bytes, bool, list[str]]:
        """Closes the server. Returns the written bytes, whether the server closed the connection, and the metrics."""
        result = self.stream.written, self.stream.closed, self.counts()
        self.stream.closed = True
        self.stream.protocol.connection_lost(None)
        await settle()
        for task in list(self.state.tasks):
            task.cancel()
        await settle()
        return result


async def settle() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


Script = Callable[[ServerHarness], Awaitable[None]]


def run_script(
    direct: bool, script: Script, engine_suspends: bool = False, **settings: str
) -> tuple[bytes, bool, list[str]]:
    async def main() -> tuple[bytes, bool, list[str]]:
        named = {name.replace("__", "."): value for name, value in settings.items()}
        server = await ServerHarness(direct, named, engine_suspends).open()
        await script(server)
        return await server.close()

    return asyncio.run(main())


def both(script: Script, engine_suspends: bool = False, **settings: str) -> tuple[bytes, bool, list[str]]:
    """Runs the script on both paths, asserts the same result, and returns it."""
    direct, asgi = (run_script(direct_posts, script, engine_suspends, **settings) for direct_posts in (True, False))
    assert direct == asgi
    return direct


def pieces(*data: bytes) -> Script:
    return lambda server: server.receive(*data)


@contextmanager
def record_direct_paths(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collects the paths of the requests on the direct path."""
    direct_paths: list[str] = []
    call = DirectPostObserver.__call__

    async def record(self: Any, path: str, *rest: Any) -> Any:
        direct_paths.append(path)
        return await call(self, path, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(DirectPostObserver, "__call__", record)
        yield direct_paths


def test_plain_calls_take_the_direct_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every method, whole or with the body in a second read. Otherwise this suite would compare nothing."""
    whole = request()
    head = len(whole) - len(BODY)
    with record_direct_paths(monkeypatch) as direct_paths:
        for method in METHODS:
            run_script(True, pieces(request(b"{}", target=b"/api/" + method.encode())))
        run_script(True, pieces(whole, whole[:head], whole[head:], whole[:-1], whole[-1:], whole))
        assert direct_paths == [f"/api/{method}" for method in METHODS] + ["/api/publish"] * 4
        direct_paths.clear()
        run_script(False, pieces(whole))
        run_script(True, pieces(request(target=b"/api/nix"), request(start=b"PUT %b HTTP/1.1"), whole + whole))
        assert direct_paths == []


CASES: dict[str, tuple[int, Sequence[bytes]]] = {
    "published": (200, [request()]),
    "twice on one connection": (200, [request(), request()]),
    "key with the apikey scheme": (200, [request(headers=b"authorization: ApiKey  old\r\n")]),
    "key in the query": (200, [request(headers=b"", target=b"/api/publish?x=1&api_key=right")]),
    "no key": (401, [request(headers=b"")]),
    "empty key": (401, [request(headers=b"X-API-Key:\r\n")]),
    "wrong key": (401, [request(headers=b"X-API-Key: rightt\r\n")]),
    "key that is not ASCII": (401, [request(headers=b"X-API-Key: \xff\r\n")]),
    "Bearer": (401, [request(headers=b"Authorization: Bearer right\r\n")]),
    "Basic": (401, [request(headers=b"Authorization: Basic cmlnaHQ=\r\n")]),
    "wrong key, and the next is right": (401, [request(headers=b""), request()]),
    "not JSON": (400, [request(b'{"channel":')]),
    "not UTF-8": (400, [request(b"\xff")]),
    "another shape": (200, [request(b'{"channel":5}')]),
    "another shape, as a status": (400, [request(b'{"channel":5}', KEY + b"X-Centrifugo-Error-Mode: transport\r\n")]),
    "unknown namespace, as a status": (
        404, [request(b'{"channel":"no:x","data":1}', KEY + b"X-Beaconfire-Error-Mode: Transport\r\n")],
    ),
    "empty body": (200, [request(b"")]),
    "no length": (200, [b"POST /api/publish HTTP/1.1\r\nHost: x\r\n" + KEY + b"\r\n"]),
    "batch": (200, [request(b'{"commands":[{"publish":' + BODY + b'},{"nix":1}]}', target=b"/api/batch")]),
    "broadcast": (200, [request(b'{"channels":["a","no:b"],"data":1}', target=b"/api/broadcast")]),
    "unknown method": (404, [request(target=b"/api/nix")]),
    "percent-encoded": (200, [request(target=b"/api/publis%68")]),
    "absolute target": (200, [request(target=b"http://x/api/publish")]),
    "slash at the end": (404, [request(target=b"/api/publish/")]),
    "lines": (200, [request(b'{"method":"publish","params":' + BODY + b"}", target=b"/api")]),
    "GET": (405, [b"GET /api/publish HTTP/1.1\r\nHost: x\r\n\r\n"]),
    "HEAD": (405, [b"HEAD /api/publish HTTP/1.1\r\nHost: x\r\n\r\n"]),
    "PUT": (405, [request(start=b"PUT %b HTTP/1.1")]),
    "OPTIONS": (204, [b"OPTIONS /api/publish HTTP/1.1\r\nHost: x\r\n\r\n"]),
    "HTTP/1.0": (200, [request(start=OLD)]),
    "HTTP/1.0 with keep-alive": (200, [request(BODY, KEY + b"Connection: keep-alive\r\n", start=OLD)]),
    "Connection: close": (200, [request(headers=KEY + b"Connection: close\r\n"), request()]),
    "more after Connection: close": (200, [request(headers=KEY + b"Connection: close\r\n") + request()]),
    "upgrade to something else": (200, [request(headers=KEY + b"Connection: Upgrade\r\nUpgrade: h2c\r\n")]),
    "chunked": (200, [CHUNKED + b"3\r\n" + BODY[:3] + b"\r\n%x\r\n" % (len(BODY) - 3) + BODY[3:] + b"\r\n0\r\n\r\n"]),
    "chunked with trailers": (200, [CHUNKED + b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\nX-A: b\r\n\r\n"]),
    "chunked and too large": (413, [CHUNKED + b"7d1\r\n" + b"x" * 2001 + b"\r\n0\r\n\r\n"]),
    "chunked wrongly": (400, [CHUNKED + b"zz\r\n"]),
    "two lengths": (400, [request(headers=KEY + b"Content-Length: 3\r\n")]),
    "length and chunks": (400, [request(headers=KEY + b"Transfer-Encoding: chunked\r\n")]),
    "too large": (413, [request(b"x" * 2001)]),
    "too large, no key": (401, [request(b"x" * 2001, b"")]),
    "announced too large": (413, [request(b"x" * 40_000)[:-40_000]]),
    "Expect": (100, [request(headers=KEY + b"Expect: 100-continue\r\n")[: -len(BODY)], BODY]),
    "Expect without waiting": (100, [request(headers=KEY + b"Expect: 100-continue\r\n")]),
    "Expect without a key": (401, [request(headers=b"Expect: 100-continue\r\n")[: -len(BODY)]]),
    "huge head": (431, [request(headers=KEY + b"Cookie: " + b"c" * 40_000 + b"\r\n")]),
    "malformed bytes after it": (400, [request() + b"nonsense\r\n\r\n"]),
    "an empty line before it": (200, [b"\r\n" + request()]),
    "empty lines between": (200, [request(), b"\r\n", request()]),
    "pipelined": (200, [request() + request(headers=b"") + request(b"{")]),
    "pipelined, the last in pieces": (200, [request() + request()[:30], request()[30:]]),
    "pipelined in another read": (200, [request()[:-1], request()[-1:] + request()]),
    "as many pipelined as may be": (200, [request() * (1 + PIPELINE_MAX)]),
    "between other requests": (200, [GET_HEALTH, request(), GET_HEALTH, request()]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_responses_are_the_same(case: str) -> None:
    """The same bytes, the same closing, the same metrics, whether calls run in one step or in tasks."""
    status, data = CASES[case]
    in_one_step = both(pieces(*data))
    assert in_one_step[0].startswith(b"HTTP/1.1 %d " % status)
    assert both(pieces(*data), engine_suspends=True) == in_one_step


@pytest.mark.parametrize("case", ["published", "no key", "chunked", "batch", "HTTP/1.0", "Expect without waiting"])
def test_responses_are_the_same_at_every_division(case: str) -> None:
    """In two reads, divided at every byte, and in reads of one byte."""
    data = CASES[case][1][0]
    expected = both(pieces(data))
    for cut in range(1, len(data)):
        assert run_script(True, pieces(data[:cut], data[cut:])) == expected, cut
    assert both(pieces(*(data[at : at + 1] for at in range(len(data))))) == expected


def test_too_many_pipelined_requests_close_the_connection() -> None:
    """No response is sent."""
    written, closed, _ = both(pieces(request() * (2 + PIPELINE_MAX)))
    assert (written, closed) == (b"", True)


@pytest.mark.parametrize("part", [len(request()) - 1, len(request()) - len(BODY), 20])
def test_slow_requests_get_the_deadlines_of_the_http_server(part: int) -> None:
    """A held request goes to the HTTP server after a short time."""

    async def script(server: ServerHarness) -> None:
        await server.receive(request()[:part])
        await server.advance(61, steps=610)

    assert both(script)[1]

    async def late(server: ServerHarness) -> None:
        await server.receive(request()[:part])
        await server.advance(3, steps=30)
        await server.receive(request()[part:], request())

    written, closed, _ = both(late)
    assert (written.count(b"HTTP/1.1 200 "), closed) == (2, False)


def test_idle_time_after_a_call_is_limited_by_uvicorn() -> None:
    """The deadline for the first request ends with that request."""

    async def script(server: ServerHarness) -> None:
        await server.receive(request())
        await server.advance(1000)

    assert not both(script)[1]


def test_connection_lost_within_a_request() -> None:
    """Nothing is written and no method is called."""

    async def script(server: ServerHarness) -> None:
        await server.receive(request()[:-5])
        server.stream.closed = True
        server.stream.protocol.connection_lost(None)
        await settle()

    written, _, counts = both(script)
    assert written == b""
    assert not [line for line in counts if line.startswith("beaconfire_api_calls_total")]


@pytest.mark.parametrize("part", [0, 20, len(request()) - len(BODY), len(request()) - 5])
def test_shutdown_completes_a_request_with_a_whole_head(part: int) -> None:
    """Then the connection is closed. A connection without a whole head is closed at once."""

    async def script(server: ServerHarness) -> None:
        await server.receive(request(), request()[:part] or b"\r\n")
        server.stream.protocol.shutdown()
        await server.receive(request()[part:])

    written, closed, _ = both(script)
    assert closed
    assert written.count(b"HTTP/1.1 200 ") == (2 if part > 20 else 1)
    assert (b"connection: close" in written) == (part > 20)


def test_forwarding_headers_of_trusted_proxies() -> None:
    """They change only the logged address."""
    both(pieces(request(headers=KEY + b"X-Forwarded-For: 203.0.113.7\r\n")), server__trusted_proxies='["127.0.0.1"]')


# --- handlers that suspend --------------------------------------------------------------------------------------------

SLOW = request(b'{"channel":"chat"}', target=b"/api/presence_stats")


class SlowEngine:
    """Makes an engine suspend, as one across a network. The server must have been made with `engine_suspends`."""

    def __init__(self, server: ServerHarness) -> None:
        self.resume = asyncio.Event()
        server.app.engine.presence.stats = self._stats  # type: ignore[method-assign]

    async def _stats(self, channel: str) -> PresenceStats:
        await self.resume.wait()
        return PresenceStats(2, 1)


def waiting(then: Callable[[ServerHarness, SlowEngine], Coroutine[Any, Any, None]]) -> Script:
    """A script with a call that waits for its engine, and then runs `then`."""

    async def script(server: ServerHarness) -> None:
        engine = SlowEngine(server)
        await server.receive(SLOW)
        assert server.stream.written == b""
        assert len(server.state.tasks) == 1
        await then(server, engine)

    return script


def both_slow(then: Callable[[ServerHarness, SlowEngine], Coroutine[Any, Any, None]]) -> tuple[bytes, bool, list[str]]:
    """As `both`, with a call that waits for its engine while `then` begins."""
    return both(waiting(then), engine_suspends=True, channel__presence="true")


def test_responses_are_sent_in_order() -> None:
    """Requests that arrive while a call waits get their responses after it."""

    async def then(server: ServerHarness, engine: SlowEngine) -> None:
        await server.receive(request(), request(headers=b"")[:50])
        assert server.stream.written == b""
        engine.resume.set()
        await settle()
        await server.receive(request(headers=b"")[50:])

    written, closed, _ = both_slow(then)
    assert [part[:3] for part in written.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"401"]
    assert b'"num_clients":2' in written.split(b"HTTP/1.1 ")[1]
    assert not closed


def test_shutdown_waits_for_a_running_call() -> None:
    """The connection is closed after the response."""

    async def then(server: ServerHarness, engine: SlowEngine) -> None:
        server.stream.protocol.shutdown()
        assert not server.stream.closed
        engine.resume.set()
        await settle()

    written, closed, _ = both_slow(then)
    assert (b"connection: close" in written, closed) == (True, True)


def test_cancelled_call_gets_500() -> None:
    """uvicorn cancels running calls at the end of its shutdown time."""

    async def then(server: ServerHarness, engine: SlowEngine) -> None:
        server.stream.protocol.shutdown()
        for task in server.state.tasks:
            task.cancel()
        await settle()

    written, closed, counts = both_slow(then)
    assert (written.startswith(b"HTTP/1.1 500 "), closed) == (True, True)
    assert any('status="499"' in line for line in counts)


def test_connection_lost_while_a_call_waits() -> None:
    """The call is completed, because it may have had an effect. Nothing is written."""

    async def then(server: ServerHarness, engine: SlowEngine) -> None:
        server.stream.closed = True
        server.stream.protocol.connection_lost(None)
        engine.resume.set()
        await settle()

    written, _, counts = both_slow(then)
    assert written == b""
    assert any('method="presence_stats"' in line for line in counts)


def test_response_waits_for_a_slow_reader() -> None:
    """Unread responses do not accumulate."""

    async def script(server: ServerHarness) -> None:
        await server.receive(request())
        server.stream.protocol.pause_writing()
        await server.receive(request())
        assert server.stream.written.count(b"HTTP/1.1") == 1
        server.stream.protocol.resume_writing()
        await settle()

    assert both(script)[0].count(b"HTTP/1.1 200 ") == 2
