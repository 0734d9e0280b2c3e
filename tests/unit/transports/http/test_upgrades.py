"""Requests for unsupported upgrades, and requests with an invalid Host, on both paths of the server API.

Each request publishes. The channel's history then shows which requests were executed, and how often.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

from beaconfire.transports.http.limits import PIPELINE_MAX
from tests.unit.transports.http.support import FakeHttpStream
from tests.unit.transports.http.test_direct_posts import (
    GET_HEALTH,
    KEY,
    ServerHarness,
    SlowEngine,
    both_slow,
    request,
    settle,
)

OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n",
    "TLS": b"Connection: keep-alive, Upgrade\r\nUpgrade: TLS/1.0\r\n",
    "unknown": b"Upgrade: foo\r\nConnection: upgrade\r\n",
    "empty": b"Upgrade:\r\nConnection: upgrade\r\n",
    "WebSocket": b"Upgrade: WebSocket\r\nConnection: Upgrade\r\n",
    "WebSocket handshake": (
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    ),
    "list": b"Upgrade: h2c, websocket\r\nConnection: Upgrade\r\n",
    "two fields": b"Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: keep-alive\r\nConnection: Upgrade\r\n",
}
H2C = OFFERS["h2c"]


def publish(number: int, headers: bytes = H2C, version: bytes = b"1.1", key: bytes = KEY) -> bytes:
    body = b'{"channel":"chat","data":%d}' % number
    return request(body, key + headers, start=b"POST %b HTTP/" + version)


def chunked(number: int, headers: bytes = H2C) -> bytes:
    body = b'{"channel":"chat","data":%d}' % number
    head = b"POST /api/publish HTTP/1.1\r\nHost: x\r\n" + KEY + headers + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + b"5\r\n" + body[:5] + b"\r\n%x\r\n" % (len(body) - 5) + body[5:] + b"\r\n0\r\n\r\n"


def run_requests(direct: bool, data: Sequence[bytes]) -> tuple[list[int], list[int], bool]:
    """The statuses of the responses, the publications, and whether the server closed the connection."""

    async def main() -> tuple[list[int], list[int], bool]:
        history = {"channel.history_size": "100", "channel.history_ttl": "300s"}
        server = await ServerHarness(direct, history).open()
        await server.receive(*data)
        # A call on a second connection reads the publications.
        other, server.stream = server.stream, FakeHttpStream()
        protocol = server._make(config=server.config, server_state=server.state, app_state={})
        server.stream.protocol = protocol
        protocol.connection_made(server.stream)
        await server.receive(request(b'{"channel":"chat","limit":-1}', target=b"/api/history"))
        decoded = json.loads(server.stream.written.partition(b"\r\n\r\n")[2])
        await server.close()
        server.stream = other
        written, closed, _ = await server.close()
        statuses = [int(part[:3]) for part in written.split(b"HTTP/1.1 ")[1:]]
        return statuses, [each["data"] for each in decoded["result"]["publications"]], closed

    return asyncio.run(main())


def both_paths(data: Sequence[bytes]) -> tuple[list[int], list[int], bool]:
    direct, asgi = (run_requests(direct_posts, data) for direct_posts in (True, False))
    assert direct == asgi
    return direct


@pytest.mark.parametrize("offer", OFFERS)
def test_unsupported_upgrade_is_ignored(offer: str) -> None:
    """At every division, the request is executed once with its body, and the connection stays open (RFC 9110 7.8)."""
    data, after = publish(1, OFFERS[offer]), publish(2, b"")
    expected = ([200, 200], [1, 2], False)
    assert both_paths([data, after]) == expected
    assert both_paths([data + after]) == expected
    assert both_paths([data[at : at + 1] for at in range(len(data))] + [after]) == expected
    for cut in range(1, len(data), 7):
        assert run_requests(True, [data[:cut], data[cut:], after]) == expected
    head = data.index(b"\r\n\r\n") + 4
    for cut in range(head - 1, len(data)):
        assert run_requests(True, [data[:cut], data[cut:], after]) == expected


@pytest.mark.parametrize("offer", OFFERS)
def test_body_is_never_read_as_a_request(offer: str) -> None:
    """Even if the body is a request with a valid key: it is invalid JSON, and nothing is executed."""
    inner = publish(666, b"")
    data = request(inner, KEY + OFFERS[offer])
    head = data.index(b"\r\n\r\n") + 4
    for cut in (len(data), head, head + 1, head + len(inner) // 2):
        assert both_paths([data[:cut], data[cut:]][: 1 if cut == len(data) else 2]) == ([400], [], False)
    without_key = request(inner, OFFERS[offer])
    assert both_paths([without_key[:head], without_key[head:]])[1:] == ([], False)


SCRIPTS: dict[str, tuple[list[bytes], tuple[list[int], list[int], bool]]] = {
    "several at once": ([publish(1) + publish(2) + publish(3, b"") + publish(4)], ([200] * 4, [1, 2, 3, 4], False)),
    "no key": ([publish(1, key=b"") + publish(2)], ([401, 200], [2], False)),
    "chunked": ([chunked(1) + chunked(2)], ([200, 200], [1, 2], False)),
    "chunked, in bytes": ([bytes([byte]) for byte in chunked(1)], ([200], [1], False)),
    "HTTP/1.0": ([publish(1, version=b"1.0") + publish(2)], ([200], [1], True)),
    "the last": (
        [publish(1, b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n") + publish(2), publish(3)], ([200], [1], True),
    ),
    "Expect": (
        [publish(1, H2C + b"Expect: 100-continue\r\n")[:-5], publish(1)[-5:]], ([100, 200], [1], False),
    ),
    "length and chunks": ([publish(1, H2C + b"Transfer-Encoding: chunked\r\n"), publish(2)], ([400], [], True)),
    "unknown coding": (
        [publish(1, H2C).replace(b"Content-Length: 27", b"Transfer-Encoding: gzip"), publish(2)], ([400], [], True),
    ),
    "malformed bytes after it": ([publish(1) + b"nonsense\r\n\r\n"], ([400], [], True)),
    "CONNECT": ([b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n" + publish(1), publish(2)], ([400], [], True)),
    "CONNECT to a path": (
        [b"CONNECT /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n", publish(1)], ([400], [], True),
    ),
    "HTTP/2": ([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + publish(1), publish(2)], ([400], [], True)),
    "HTTP/2, in pieces": ([b"PRI * HTTP/2.0\r\n\r\n", b"SM\r\n\r\n", publish(1)], ([400], [], True)),
    "pipelined up to the limit": ([publish(1) * (1 + PIPELINE_MAX)], ([200] * 17, [1] * 17, False)),
    "pipelined beyond the limit": ([publish(1) * (2 + PIPELINE_MAX)], ([], [], True)),
    "HTTP/1.0 without a Host": ([publish(1, b"", b"1.0").replace(b"Host: x\r\n", b"")], ([200], [1], True)),
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_requests_after_an_ignored_upgrade(script: str) -> None:
    """They are executed once and in order, or the connection is closed before them."""
    data, expected = SCRIPTS[script]
    assert both_paths(data) == expected


HOSTS = {
    "none": b"",
    "two": b"Host: x\r\nHost: x\r\n",
    "one empty": b"Host: x\r\nHost:\r\n",
    "two in one": b"Host: x, y\r\n",
    "with a path": b"Host: x/y\r\n",
    "with a user": b"Host: u@x\r\n",
    "not ASCII": b"Host: \xff\r\n",
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("offer", ["", "h2c", "WebSocket"])
def test_request_must_have_one_valid_host(host: str, offer: str) -> None:
    """Otherwise 400 and a close (RFC 9112 section 3.2), in one read or several. Nothing is executed."""
    data = publish(1, OFFERS.get(offer, b"")).replace(b"Host: x\r\n", HOSTS[host])
    for parts in ([data, publish(2)], [data + publish(2)], [bytes([byte]) for byte in data]):
        assert both_paths(parts) == ([400], [], True)


@pytest.mark.parametrize("host", [b"x", b"x:8000", b"[::1]:8000", b"a_b.example", b"%41", b""])
def test_valid_hosts_are_accepted(host: bytes) -> None:
    """Names, addresses and ports. An empty Host is valid for a target without a host."""
    assert both_paths([publish(1, b"").replace(b"Host: x\r\n", b"Host: " + host + b"\r\n")]) == ([200], [1], False)


def test_no_upgrade_while_a_response_is_pending() -> None:
    """That response must not enter the WebSocket. So the upgrade request is handled as any other, after it."""
    handshake = b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\n" + OFFERS["WebSocket handshake"] + b"\r\n"

    async def then(server: ServerHarness, engine: SlowEngine) -> None:
        await server.receive(GET_HEALTH + handshake)
        engine.resume.set()
        await settle()

    written, closed, _ = both_slow(then)
    assert [part[:3] for part in written.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"426"]
    assert not closed
