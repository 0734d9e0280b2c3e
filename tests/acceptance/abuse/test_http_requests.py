"""Invalid HTTP requests (RFC 9112) and requests for upgrades that the server does not support.

`tests/acceptance/proxies` sends requests with upgrades through proxies, split at many positions.
"""

from __future__ import annotations

import json

import pytest

from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.deadlines import run_scenario
from tests.acceptance.raw_peer import RawPeer, encode_post, encode_upgrade_request
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import http_request, read_metrics

KEY = "X-API-Key: api_key"
ALLOWED, FOREIGN = "http://good.example", "http://evil.example"
REFUSED = 'beaconfire_handshakes_refused_total{reason="origin"}'


def encode_publish(channel: str, *headers: str) -> bytes:
    """Encodes a request of the server API that publishes."""
    body = json.dumps({"channel": channel, "data": 1})
    return "\r\n".join(["POST /api/publish HTTP/1.1", KEY, *headers, f"Content-Length: {len(body)}", "", body]).encode()


async def count_publications(server: ServerProcess, channel: str) -> int:
    """How many publications the channel has had: the offset of its history."""
    _, text = await http_request(server, "/api/history", json.dumps({"channel": channel}).encode())
    return int(json.loads(text)["result"]["offset"])


HOSTS: dict[str, tuple[str, ...]] = {
    "none": (),
    "two": ("Host: localhost", "Host: localhost"),
    "two in one": ("Host: localhost, localhost",),
    "invalid": ("Host: localhost/api",),
}


@pytest.mark.parametrize("hosts", HOSTS)
def test_request_without_exactly_one_valid_host_is_refused_with_400(
    permissive_server: ServerProcess, hosts: str
) -> None:
    """The rule holds for the server API, other HTTP requests and WebSocket handshakes, whole or in pieces."""
    channel = f"host-{hosts}"
    handshake = encode_upgrade_request().replace(
        b"Host: localhost\r\n", "".join(f"{h}\r\n" for h in HOSTS[hosts]).encode()
    )
    call = encode_publish(channel, *HOSTS[hosts])
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
        assert await count_publications(permissive_server, channel) == 0

    run_scenario(scenario())


def test_http_1_0_request_needs_no_host_and_cannot_be_upgraded(permissive_server: ServerProcess) -> None:
    """Load balancers check health with HTTP/1.0, which has neither `Host` nor `Upgrade`."""

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
def test_unsupported_upgrade_is_ignored(permissive_server: ServerProcess, upgrade: str) -> None:
    """The server answers the request after its delayed body, and never executes the body as another request.

    An upgrade to WebSocket is not supported for POST.
    """
    channel = f"upgrade-{upgrade.replace('/', '-')}"
    upgrade_headers = ("Host: localhost", "Connection: Upgrade", f"Upgrade: {upgrade}")
    inner_request = encode_publish(channel, "Host: localhost")
    smuggling_head = encode_publish(channel, *upgrade_headers).partition(b"Content-Length")[0]
    smuggling_head += b"Content-Length: %d\r\n\r\n" % len(inner_request)

    async def scenario() -> None:
        async with undisturbed_traffic(permissive_server), await RawPeer.connect_tcp(permissive_server.port) as peer:
            head, separator, body = encode_publish(channel, *upgrade_headers).partition(b"\r\n\r\n")
            valid = (head + separator, body, 200)
            for first, second, status in (valid, (smuggling_head, inner_request, 400), valid):
                await peer.send(first)
                await http_request(permissive_server, "/health")  # once this is answered, the server has read the head
                await peer.send(second)
                response = await peer.read_response_head()
                assert response.status == status
                await peer.read_bytes(int(response.headers["content-length"]))
        assert await count_publications(permissive_server, channel) == 2

    run_scenario(scenario())


@pytest.mark.parametrize("upgrade", ["h2c", "TLS/1.0", ""])
def test_unsupported_upgrade_of_a_request_without_body_is_ignored(
    permissive_server: ServerProcess, upgrade: str
) -> None:
    """The rule holds on any path, also on WebSocket endpoints, and for several requests of one connection."""

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


def test_upgrade_before_the_response_to_an_earlier_request_is_refused_with_426(
    permissive_server: ServerProcess,
) -> None:
    """That response would mix with WebSocket frames. The connection continues with HTTP and can be upgraded later."""

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


@pytest.mark.parametrize("origins", [(ALLOWED, FOREIGN), (FOREIGN, ALLOWED), (ALLOWED, ALLOWED)])
@pytest.mark.parametrize("path", ["/connection/http_stream", "/connection/sse", "/connection/poll", "/emulation"])
def test_http_request_with_two_origins_is_refused_with_403(
    permissive_server: ServerProcess, path: str, origins: tuple[str, str]
) -> None:
    """The order of the two `Origin` headers does not matter, and the refusal is counted as for WebSockets."""
    body = b'{"id":1,"connect":{}}'
    request = encode_post(path, body, [("Origin", origin) for origin in origins])

    async def scenario() -> None:
        before = (await read_metrics(permissive_server)).get(REFUSED, 0)
        async with undisturbed_traffic(permissive_server), await RawPeer.connect_tcp(permissive_server.port) as peer:
            await peer.send(request)
            response = await peer.read_response_head()
            assert response.status == 403
            assert "access-control-allow-origin" not in response.headers
        assert (await read_metrics(permissive_server))[REFUSED] == before + 1

    run_scenario(scenario())
