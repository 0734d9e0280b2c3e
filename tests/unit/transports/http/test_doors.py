"""The server API has two doors, and nobody can tell by an answer through which one a request went.

Each case is sent to two whole servers, one of which has the direct door and the other only ASGI. What they write, byte
for byte, whether they close the connection, and what they count must be the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from beaconfire.api.methods import METHODS
from beaconfire.base.clock import ManualClock
from beaconfire.config import load
from beaconfire.engines.port import PresenceStats
from beaconfire.observe.http import DirectPostObserver
from beaconfire.server.app import App
from beaconfire.transports.http.guard import PIPELINE_MAX, HttpGuard
from tests.unit.transports.http.test_guard import FakeStream

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


class House:
    """A server and one connection to it."""

    def __init__(self, direct: bool, settings: dict[str, str]) -> None:
        self.clock = ManualClock()
        settings = {"api.keys": '["right", "old"]', "api.request_max_size": "2000", **settings}
        self.app = App(load(None, {}, settings), self.clock)
        self.state = ServerState()
        self.config = uvicorn.Config(
            self.app.asgi, ws=self.app.acceptor.upgrade, interface="asgi3", lifespan="off", log_config=None,  # type: ignore[arg-type]
            timeout_keep_alive=3600, proxy_headers=bool(self.app.config.server.trusted_proxies),
            forwarded_allow_ips=self.app.config.server.trusted_proxies,
        )  # fmt: skip
        self.config.load()
        guard = HttpGuard(self.app.config.server, self.app.timers, self.app.events)
        self._make = self.app.http if direct else guard.protocol
        self.stream = FakeStream()

    async def open(self) -> House:
        await self.app.node.start()
        protocol = self._make(config=self.config, server_state=self.state, app_state={})
        self.stream.protocol = protocol
        protocol.connection_made(self.stream)
        return self

    async def receive(self, *pieces: bytes) -> None:
        """Each piece is a read of its own, and what it sets off is finished before the next."""
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
        """What was written, whether the server ended the connection, and what it counted."""
        seen = self.stream.written, self.stream.closed, self.counts()
        self.stream.closed = True
        self.stream.protocol.connection_lost(None)
        await settle()
        for task in list(self.state.tasks):
            task.cancel()
        await settle()
        return seen


async def settle() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


Script = Callable[[House], Awaitable[None]]


def through(direct: bool, script: Script, **settings: str) -> tuple[bytes, bool, list[str]]:
    async def main() -> tuple[bytes, bool, list[str]]:
        house = await House(direct, {name.replace("__", "."): value for name, value in settings.items()}).open()
        await script(house)
        return await house.close()

    return asyncio.run(main())


def both(script: Script, **settings: str) -> tuple[bytes, bool, list[str]]:
    """What both doors do, which must be the same."""
    direct, asgi = (through(direct_posts, script, **settings) for direct_posts in (True, False))
    assert direct == asgi
    return direct


def pieces(*data: bytes) -> Script:
    return lambda house: house.receive(*data)


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The paths that were answered directly."""
    asked: list[str] = []
    call = DirectPostObserver.__call__

    async def note(self: Any, path: str, *rest: Any) -> Any:
        asked.append(path)
        return await call(self, path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(DirectPostObserver, "__call__", note)
        yield asked


def test_plain_calls_are_answered_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole, or with the body right behind the head, every method; otherwise this suite would compare nothing."""
    whole = request()
    head = len(whole) - len(BODY)
    with counting(monkeypatch) as asked:
        for method in METHODS:
            through(True, pieces(request(b"{}", target=b"/api/" + method.encode())))
        through(True, pieces(whole, whole[:head], whole[head:], whole[:-1], whole[-1:], whole))
        assert asked == [f"/api/{method}" for method in METHODS] + ["/api/publish"] * 4
        asked.clear()
        through(False, pieces(whole))
        through(True, pieces(request(target=b"/api/nix"), request(start=b"PUT %b HTTP/1.1"), whole + whole))
        assert asked == []


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
    "HTTP/1.0 that wants to stay": (200, [request(BODY, KEY + b"Connection: keep-alive\r\n", start=OLD)]),
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
    "Expect, and not waited": (100, [request(headers=KEY + b"Expect: 100-continue\r\n")]),
    "Expect without a key": (401, [request(headers=b"Expect: 100-continue\r\n")[: -len(BODY)]]),
    "huge head": (431, [request(headers=KEY + b"Cookie: " + b"c" * 40_000 + b"\r\n")]),
    "nonsense behind it": (400, [request() + b"nonsense\r\n\r\n"]),
    "an empty line before it": (200, [b"\r\n" + request()]),
    "empty lines between": (200, [request(), b"\r\n", request()]),
    "pipelined": (200, [request() + request(headers=b"") + request(b"{")]),
    "pipelined, the last in pieces": (200, [request() + request()[:30], request()[30:]]),
    "pipelined in another read": (200, [request()[:-1], request()[-1:] + request()]),
    "as many pipelined as may be": (200, [request() * (1 + PIPELINE_MAX)]),
    "between other requests": (200, [GET_HEALTH, request(), GET_HEALTH, request()]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_same_answers(case: str) -> None:
    """The same bytes, the same end, the same figures."""
    status, data = CASES[case]
    assert both(pieces(*data))[0].startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("case", ["published", "no key", "chunked", "batch", "HTTP/1.0", "Expect, and not waited"])
def test_split_anywhere(case: str) -> None:
    """In two reads, wherever the cut is, and in as many as there are bytes."""
    data = CASES[case][1][0]
    expected = both(pieces(data))
    for cut in range(1, len(data)):
        assert through(True, pieces(data[:cut], data[cut:])) == expected, cut
    assert both(pieces(*(data[at : at + 1] for at in range(len(data))))) == expected


def test_more_pipelined_than_may_be_are_cut() -> None:
    """Nothing is answered."""
    written, closed, _ = both(pieces(request() * (2 + PIPELINE_MAX)))
    assert (written, closed) == (b"", True)


@pytest.mark.parametrize("part", [len(request()) - 1, len(request()) - len(BODY), 20])
def test_slow_requests(part: int) -> None:
    """A body or a head that does not come is the HTTP server's business after a moment, with its deadlines."""

    async def script(house: House) -> None:
        await house.receive(request()[:part])
        await house.advance(61, steps=610)

    assert both(script)[1]

    async def late(house: House) -> None:
        await house.receive(request()[:part])
        await house.advance(3, steps=30)
        await house.receive(request()[part:], request())

    written, closed, _ = both(late)
    assert (written.count(b"HTTP/1.1 200 "), closed) == (2, False)


def test_silence_after_a_call_is_uvicorns_business() -> None:
    """The deadline for the first request of a connection is over with it."""

    async def script(house: House) -> None:
        await house.receive(request())
        await house.advance(1000)

    assert not both(script)[1]


def test_client_goes_away_in_the_middle() -> None:
    """Nothing is written and nothing called."""

    async def script(house: House) -> None:
        await house.receive(request()[:-5])
        house.stream.closed = True
        house.stream.protocol.connection_lost(None)
        await settle()

    written, _, counts = both(script)
    assert written == b""
    assert not [line for line in counts if line.startswith("beaconfire_api_calls_total")]


@pytest.mark.parametrize("part", [0, 20, len(request()) - len(BODY), len(request()) - 5])
def test_shutdown(part: int) -> None:
    """Who has sent a head is answered and then let go; the others are let go at once."""

    async def script(house: House) -> None:
        await house.receive(request(), request()[:part] or b"\r\n")
        house.stream.protocol.shutdown()
        await house.receive(request()[part:])

    written, closed, _ = both(script)
    assert closed
    assert written.count(b"HTTP/1.1 200 ") == (2 if part > 20 else 1)
    assert (b"connection: close" in written) == (part > 20)


def test_trusted_proxies() -> None:
    """Their headers change nothing but what is logged."""
    both(pieces(request(headers=KEY + b"X-Forwarded-For: 203.0.113.7\r\n")), server__trusted_proxies='["127.0.0.1"]')


# --- engines that must be waited for ---------------------------------------------------------------------------------

SLOW = request(b'{"channel":"chat"}', target=b"/api/presence_stats")


class Slow:
    """Stands in for an engine across a network."""

    def __init__(self, house: House) -> None:
        self.go = asyncio.Event()
        house.app.engine.presence.stats = self._stats  # type: ignore[method-assign]

    async def _stats(self, channel: str) -> PresenceStats:
        await self.go.wait()
        return PresenceStats(2, 1)


def waiting(then: Callable[[House, Slow], Coroutine[Any, Any, None]]) -> Script:
    """A call that waits for its engine, and what happens meanwhile."""

    async def script(house: House) -> None:
        slow = Slow(house)
        await house.receive(SLOW)
        assert house.stream.written == b""
        assert len(house.state.tasks) == 1
        await then(house, slow)

    return script


PRESENCE = {"channel__presence": "true"}


def test_answers_come_in_order() -> None:
    """What arrives while one call waits is answered after it."""

    async def then(house: House, slow: Slow) -> None:
        await house.receive(request(), request(headers=b"")[:50])
        assert house.stream.written == b""
        slow.go.set()
        await settle()
        await house.receive(request(headers=b"")[50:])

    written, closed, _ = both(waiting(then), **PRESENCE)
    assert [part[:3] for part in written.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"401"]
    assert b'"num_clients":2' in written.split(b"HTTP/1.1 ")[1]
    assert not closed


def test_shutdown_waits_for_an_answer() -> None:
    """It is finished, and then the connection."""

    async def then(house: House, slow: Slow) -> None:
        house.stream.protocol.shutdown()
        assert not house.stream.closed
        slow.go.set()
        await settle()

    written, closed, _ = both(waiting(then), **PRESENCE)
    assert (b"connection: close" in written, closed) == (True, True)


def test_end_of_the_time_for_shutdown() -> None:
    """uvicorn cancels what is left; the client learns that it was our fault."""

    async def then(house: House, slow: Slow) -> None:
        house.stream.protocol.shutdown()
        for task in house.state.tasks:
            task.cancel()
        await settle()

    written, closed, counts = both(waiting(then), **PRESENCE)
    assert (written.startswith(b"HTTP/1.1 500 "), closed) == (True, True)
    assert any('status="499"' in line for line in counts)


def test_client_goes_away_while_its_call_waits() -> None:
    """The call is finished, for it may have done something; nothing is written."""

    async def then(house: House, slow: Slow) -> None:
        house.stream.closed = True
        house.stream.protocol.connection_lost(None)
        slow.go.set()
        await settle()

    written, _, counts = both(waiting(then), **PRESENCE)
    assert written == b""
    assert any('method="presence_stats"' in line for line in counts)


def test_a_reader_that_is_full_is_waited_for() -> None:
    """No answer is piled on those that nobody reads."""

    async def script(house: House) -> None:
        await house.receive(request())
        house.stream.protocol.pause_writing()
        await house.receive(request())
        assert house.stream.written.count(b"HTTP/1.1") == 1
        house.stream.protocol.resume_writing()
        await settle()

    assert both(script)[0].count(b"HTTP/1.1 200 ") == 2
