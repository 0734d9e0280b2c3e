"""HTTP requests that are not as RFC 9112 wants them, and upgrades that are not supported, beside neighbours who talk.

`tests/acceptance/proxies` sends the latter through proxies and in all kinds of pieces.
"""

from __future__ import annotations

import json

import pytest

from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.deadlines import run_scenario
from tests.acceptance.raw_peer import RawPeer, encode_upgrade_request
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import http_request, read_metrics

KEY = "X-API-Key: api_key"
GOOD, EVIL = "http://good.example", "http://evil.example"
REFUSED = 'beaconfire_handshakes_refused_total{reason="origin"}'


def publish(channel: str, *headers: str) -> bytes:
    body = json.dumps({"channel": channel, "data": 1})
    return "\r\n".join(["POST /api/publish HTTP/1.1", KEY, *headers, f"Content-Length: {len(body)}", "", body]).encode()


async def published(server: ServerProcess, channel: str) -> int:
    """How many publications the channel has had."""
    _, text = await http_request(server, "/api/history", json.dumps({"channel": channel}).encode())
    return int(json.loads(text)["result"]["offset"])


HOSTS: dict[str, tuple[str, ...]] = {
    "none": (),
    "two": ("Host: localhost", "Host: localhost"),
    "two in one": ("Host: localhost, localhost",),
    "invalid": ("Host: localhost/api",),
}


@pytest.mark.parametrize("hosts", HOSTS)
def test_a_request_without_one_valid_host_is_400(permissive_server: ServerProcess, hosts: str) -> None:
    """Whoever would have answered: the API at once, the HTTP server, or either way to a WebSocket."""
    channel = f"host-{hosts}"
    handshake = encode_upgrade_request().replace(
        b"Host: localhost\r\n", "".join(f"{h}\r\n" for h in HOSTS[hosts]).encode()
    )
    call = publish(channel, *HOSTS[hosts])
    health = "\r\n".join(["GET /health HTTP/1.1", *HOSTS[hosts], "", ""]).encode()
    requests = {
        "API": [call],
        "API, in pieces": [call[:10], call[10:]],
        "HTTP": [health],
        "WebSocket": [handshake],
        "WebSocket, in pieces": [handshake[:10], handshake[10:]],
    }

    async def scenario() -> None:
        async with undisturbed_traffic(permissive_server):
            for name, pieces in requests.items():
                async with await RawPeer.connect_tcp(permissive_server.port) as peer:
                    for piece in pieces:
                        await peer.send(piece)
                    response = await peer.read_response_head()
                    assert (response.status, response.headers["connection"]) == (400, "close"), name
                    await peer.wait_closed()
        assert await published(permissive_server, channel) == 0

    run_scenario(scenario())


def test_an_old_request_needs_no_host(permissive_server: ServerProcess) -> None:
    """HTTP/1.0 has none (load balancers check health like that), and no upgrade either."""

    async def scenario() -> None:
        async with await RawPeer.connect_tcp(permissive_server.port) as peer:
            await peer.send(b"GET /health/ready HTTP/1.0\r\n\r\n")
            assert (await peer.read_response_head()).status == 200
        for pieces in (1, 2):
            async with await RawPeer.connect_tcp(permissive_server.port) as peer:
                handshake = encode_upgrade_request().replace(b"HTTP/1.1", b"HTTP/1.0", 1)
                await peer.send(handshake[: 20 * (pieces - 1)])
                await peer.send(handshake[20 * (pieces - 1) :])
                assert (await peer.read_response_head()).status == 400
                await peer.wait_closed()

    run_scenario(scenario())


@pytest.mark.parametrize("upgrade", ["h2c", "TLS/1.0", "websocket"])
def test_an_upgrade_that_is_not_supported_is_ignored(permissive_server: ServerProcess, upgrade: str) -> None:
    """The call is answered with its body, which comes late, and never executed as a request of its own."""
    channel = f"upgrade-{upgrade.replace('/', '-')}"
    asking = ("Host: localhost", "Connection: Upgrade", f"Upgrade: {upgrade}")
    inner = publish(channel, "Host: localhost")
    smuggling = publish(channel, *asking).partition(b"Content-Length")[0] + b"Content-Length: %d\r\n\r\n" % len(inner)

    async def scenario() -> None:
        async with undisturbed_traffic(permissive_server), await RawPeer.connect_tcp(permissive_server.port) as peer:
            head, gap, body = publish(channel, *asking).partition(b"\r\n\r\n")
            for first, second, status in ((head + gap, body, 200), (smuggling, inner, 400), (head + gap, body, 200)):
                await peer.send(first)
                await http_request(
                    permissive_server, "/health"
                )  # the server has read the head by the time it answers this
                await peer.send(second)
                response = await peer.read_response_head()
                assert response.status == status
                await peer.read_bytes(int(response.headers["content-length"]))
        assert await published(permissive_server, channel) == 2

    run_scenario(scenario())


@pytest.mark.parametrize("upgrade", ["h2c", "TLS/1.0", ""])
def test_a_request_without_a_body_may_ask_for_an_upgrade_too(permissive_server: ServerProcess, upgrade: str) -> None:
    """On any path, again and again, and whether or not a WebSocket could be had there."""

    async def scenario() -> None:
        async with undisturbed_traffic(permissive_server), await RawPeer.connect_tcp(permissive_server.port) as peer:
            for path, status in (("/health", 200), ("/connection/websocket", 426), ("/nowhere", 404), ("/health", 200)):
                lines = (
                    f"GET {path} HTTP/1.1",
                    "Host: localhost",
                    "Connection: keep-alive, Upgrade",
                    f"Upgrade: {upgrade}",
                )
                await peer.send("\r\n".join([*lines, "", ""]).encode())
                response = await peer.read_response_head()
                assert response.status == status
                await peer.read_bytes(int(response.headers["content-length"]))

    run_scenario(scenario())


def test_no_upgrade_before_an_earlier_answer(permissive_server: ServerProcess) -> None:
    """That answer would get into the WebSocket; the connection stays one of HTTP, and can be upgraded later."""

    async def scenario() -> None:
        async with undisturbed_traffic(permissive_server), await RawPeer.connect_tcp(permissive_server.port) as peer:
            await peer.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", encode_upgrade_request())
            for status in (200, 426):
                response = await peer.read_response_head()
                assert response.status == status
                await peer.read_bytes(int(response.headers["content-length"]))
            await peer.send(encode_upgrade_request())
            assert (await peer.read_response_head()).status == 101

    run_scenario(scenario())


@pytest.mark.parametrize("origins", [(GOOD, EVIL), (EVIL, GOOD), (GOOD, GOOD)])
@pytest.mark.parametrize("path", ["/connection/http_stream", "/connection/sse", "/connection/poll", "/emulation"])
def test_two_origins_are_refused_over_http_too(
    permissive_server: ServerProcess, path: str, origins: tuple[str, str]
) -> None:
    """403, whichever comes first, and counted as over WebSocket."""
    body = b'{"id":1,"connect":{}}'
    fields = "".join(f"Origin: {origin}\r\n" for origin in origins)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode()

    async def scenario() -> None:
        before = (await read_metrics(permissive_server)).get(REFUSED, 0)
        async with undisturbed_traffic(permissive_server), await RawPeer.connect_tcp(permissive_server.port) as peer:
            await peer.send(head, body)
            response = await peer.read_response_head()
            assert response.status == 403
            assert "access-control-allow-origin" not in response.headers
        assert (await read_metrics(permissive_server))[REFUSED] == before + 1

    run_scenario(scenario())
