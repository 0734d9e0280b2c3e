"""Requests with upgrades that Beaconfire does not support, sent directly and through nginx and HAProxy.

The server answers each request as a request without an upgrade, executes it once, and never executes its body.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator, Sequence

import pytest

from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.proxies.proxy_process import ProxyProcess
from tests.acceptance.raw_peer import RawPeer, encode_upgrade_request
from tests.acceptance.server_process import API_KEY, PERMISSIVE_CONFIG, ServerProcess
from tests.acceptance.server_state import http_request

OFFERS = {
    "none": (),
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    "TLS": ("Connection: Upgrade", "Upgrade: TLS/1.0"),
    "unknown": ("Connection: keep-alive, Upgrade", "Upgrade: foo"),
    "websocket": (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
    "list": ("Connection: Upgrade", "Upgrade: h2c, websocket"),
    "two fields": ("Connection: Upgrade", "Upgrade: foo", "Upgrade: websocket"),
}
ROUTES = ("direct", "nginx", "nginx with every upgrade", "haproxy", "haproxy with every upgrade")
COMMANDS = "/connection/commands"
GAP_S = 0.01
"""The pause between two pieces of a request. The outcome is the same if both pieces arrive together."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), PERMISSIVE_CONFIG, {"api.insecure": "false"}) as process:
        yield process


@pytest.fixture(scope="module")
def ports(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """The port for each route to the server."""
    with contextlib.ExitStack() as stack:
        ports = {"direct": server.port}
        for route in ROUTES[1:]:
            name, _, every = route.partition(" ")
            proxy = ProxyProcess(name, server.port, tmp_path_factory.mktemp(name), bool(every))
            ports[route] = stack.enter_context(proxy).port
        yield ports


def encode_request(path: str, body: bytes, offer: str, headers: Sequence[str] = ()) -> tuple[bytes, bytes]:
    """Encodes a POST request with the upgrade of this offer. Returns head and body."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *OFFERS[offer], *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode(), body


def encode_command(channel: str, number: int, offer: str = "none") -> tuple[bytes, bytes]:
    """Encodes a client's request that publishes."""
    request = {"subs": {channel: {}}, "commands": [{"publish": {"channel": channel, "data": number}}]}
    return encode_request(COMMANDS, json.dumps(request).encode(), offer)


def encode_api_call(channel: str, number: int, offer: str = "none", size: int = 0) -> tuple[bytes, bytes]:
    """Encodes a backend's request that publishes. Spaces fill the body up to `size` bytes."""
    body = json.dumps({"channel": channel, "data": number}).encode().ljust(size)
    return encode_request("/api/publish", body, offer, [f"X-API-Key: {API_KEY}"])


async def read_history(server: ServerProcess, channel: str) -> list[int]:
    body = json.dumps({"channel": channel, "limit": -1}).encode()
    status, text = await http_request(server, "/api/history", body, {"X-API-Key": API_KEY})
    assert status == 200
    return [publication["data"] for publication in json.loads(text)["result"]["publications"]]


def split_request(head: bytes, body: bytes) -> list[list[bytes]]:
    """A request in one piece, in two pieces, in three pieces, and byte by byte."""
    half = len(body) // 2
    whole = head + body
    return [
        [whole],
        [head, body],
        [head + body[:half], body[half:]],
        [head[:-1], head[-1:] + body[:1], body[1:]],
        [whole[at : at + 1] for at in range(len(whole))],
    ]


async def send_pieces(peer: RawPeer, pieces: Sequence[bytes]) -> None:
    for at, piece in enumerate(pieces):
        if at:
            await asyncio.sleep(GAP_S if len(pieces) < 5 else 0)
        await peer.send(piece)


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("route", ROUTES)
def test_request_is_answered_and_executed_once(
    server: ServerProcess, ports: dict[str, int], route: str, offer: str
) -> None:
    """The rule holds for all ways to split the request. The connection continues with a request without an upgrade."""
    channel = f"once-{route}-{offer}".replace(" ", "-")
    encoders = [encode_command, encode_api_call] if route == "direct" else [encode_command]

    async def scenario() -> None:
        expected: list[int] = []
        for encode in encoders:
            for at in range(5):
                async with await RawPeer.connect_tcp(ports[route]) as peer:
                    for request in (encode(channel, len(expected), offer), encode(channel, len(expected) + 1)):
                        await send_pieces(peer, split_request(*request)[at])
                        assert (await peer.read_response()).status == 200
                        expected.append(len(expected))
                assert await read_history(server, channel) == expected

    run_scenario(scenario())


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("route", ROUTES)
def test_body_is_never_executed(server: ServerProcess, ports: dict[str, int], route: str, offer: str) -> None:
    """A body that contains a complete server API call gets 400. nginx stores the large body on disk."""
    channel = f"never-{route}-{offer}".replace(" ", "-")

    async def scenario() -> None:
        for size in (0, 40_000):
            head, body = encode_request(COMMANDS, b"".join(encode_api_call(channel, 666, size=size)), offer)
            for pieces in ([head + body], [head, body], [head + body[:1], body[1:]]):
                async with await RawPeer.connect_tcp(ports[route]) as peer:
                    await send_pieces(peer, pieces)
                    assert (await peer.read_response()).status == 400
                    await send_pieces(peer, encode_command(channel, 1))
                    assert (await peer.read_response()).status == 200
        assert await read_history(server, channel) == [1] * 6

    run_scenario(scenario())


def test_pipelined_requests_are_answered_in_order(server: ServerProcess, ports: dict[str, int]) -> None:
    """The rule holds wherever the sequence of requests is split."""
    offers = ["h2c", "none", "websocket", "TLS", "h2c"]
    head = encode_request(COMMANDS, b"", "none")[0]

    async def scenario() -> None:
        requests = [encode_api_call("several", number, offer) for number, offer in enumerate(offers)]
        whole = b"".join(part for request in requests for part in request)
        for count, cut in enumerate(range(1, len(whole), len(head)), start=1):
            async with await RawPeer.connect_tcp(ports["direct"]) as peer:
                await send_pieces(peer, [whole[:cut], whole[cut:]])
                assert [(await peer.read_response()).status for _ in offers] == [200] * len(offers)
            tail = (await read_history(server, "several"))[-100:]
            assert tail == (list(range(len(offers))) * count)[-100:]

    run_scenario(scenario())


@pytest.mark.parametrize("route", ROUTES[1:])
def test_proxy_refuses_internal_paths(ports: dict[str, int], route: str) -> None:
    """The server API, metrics and readiness get 403, also in percent-encoded spelling."""

    async def scenario() -> None:
        for path in ("/api/publish", "/%61pi/publish", "/metrics", "/health/ready"):
            async with await RawPeer.connect_tcp(ports[route]) as peer:
                await peer.send(*encode_request(path, b"{}", "h2c"))
                assert (await peer.read_response()).status == 403, path

    run_scenario(scenario())


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "WEBSOCKET"])
@pytest.mark.parametrize("route", ROUTES)
def test_websocket_is_opened(ports: dict[str, int], route: str, upgrade: str) -> None:
    """The rule holds for a new connection, and for a connection with an earlier request and an ignored upgrade."""
    channel = f"channel-{route}-{upgrade}".replace(" ", "-")
    request = encode_upgrade_request().replace(b"Upgrade: websocket", f"Upgrade: {upgrade}".encode(), 1)

    async def scenario() -> None:
        async with JSONClient.connect(ports[route], channels=[channel]) as subscriber:
            peer = await RawPeer.connect_tcp(ports[route])
            await peer.send(b"GET /client/beaconfire.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await peer.read_response()).status == 200
            await send_pieces(peer, encode_command(channel, 1, "h2c"))
            assert (await peer.read_response()).status == 200
            await peer.send(request)
            assert (await peer.read_response_head()).status == 101
            client = JSONClient(peer)
            try:
                assert "connect" in await client.request(connect={})
                assert "subscribe" in await client.request(subscribe={"channel": channel})
                await client.publish(channel, 2)
                await wait_until(
                    lambda: subscriber.received_data(channel) == [1, 2], "the subscriber has both publications"
                )
            finally:
                await client.disconnect()

    run_scenario(scenario())
