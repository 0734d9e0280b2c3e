"""Upgrades that Beaconfire does not support, sent to it directly and through nginx and HAProxy.

Each request is answered as if it asked for no upgrade, and executed once; what its body holds is never a request.
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
from tests.acceptance.raw_peer import RawPeer, ResponseHead, encode_upgrade_request
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
WAYS = ("direct", "nginx", "nginx with every upgrade", "haproxy", "haproxy with every upgrade")
COMMANDS = "/connection/commands"
GAP_S = 0.01
"""Between two pieces of a request. If both arrive at once all the same, the outcome must not differ."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), PERMISSIVE_CONFIG, {"api.insecure": "false"}) as process:
        yield process


@pytest.fixture(scope="module")
def ports(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Where the server is reached, by the way there."""
    with contextlib.ExitStack() as stack:
        found = {"direct": server.port}
        for way in WAYS[1:]:
            name, _, every = way.partition(" ")
            proxy = ProxyProcess(name, server.port, tmp_path_factory.mktemp(name), bool(every))
            found[way] = stack.enter_context(proxy).port
        yield found


def post(path: str, body: bytes, offer: str, headers: Sequence[str] = ()) -> tuple[bytes, bytes]:
    """Head and body of a request."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *OFFERS[offer], *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode(), body


def saying(channel: str, number: int, offer: str = "none") -> tuple[bytes, bytes]:
    """A client's request that publishes."""
    speech = {"subs": {channel: {}}, "commands": [{"publish": {"channel": channel, "data": number}}]}
    return post(COMMANDS, json.dumps(speech).encode(), offer)


def calling(channel: str, number: int, offer: str = "none", size: int = 0) -> tuple[bytes, bytes]:
    """A backend's request that publishes. The body is filled up to `size` bytes with blanks."""
    body = json.dumps({"channel": channel, "data": number}).encode().ljust(size)
    return post("/api/publish", body, offer, [f"X-API-Key: {API_KEY}"])


async def answer(peer: RawPeer) -> ResponseHead:
    """The next answer, whose body is read as well."""
    response = await peer.read_response_head()
    if response.headers.get("transfer-encoding") == "chunked":
        while size := int(await line(peer), 16):
            await peer.read_bytes(size + 2)
        await line(peer)
    else:
        await peer.read_bytes(int(response.headers.get("content-length", "0")))
    return response


async def line(peer: RawPeer) -> bytes:
    taken = b""
    while not taken.endswith(b"\r\n"):
        taken += await peer.read_bytes(1)
    return taken[:-2]


async def published(server: ServerProcess, channel: str) -> list[int]:
    body = json.dumps({"channel": channel, "limit": -1}).encode()
    status, text = await http_request(server, "/api/history", body, {"X-API-Key": API_KEY})
    assert status == 200
    return [publication["data"] for publication in json.loads(text)["result"]["publications"]]


def cuts(head: bytes, body: bytes) -> list[list[bytes]]:
    """A request in one segment, in two, in three, and byte by byte."""
    half = len(body) // 2
    whole = head + body
    return [
        [whole],
        [head, body],
        [head + body[:half], body[half:]],
        [head[:-1], head[-1:] + body[:1], body[1:]],
        [whole[at : at + 1] for at in range(len(whole))],
    ]


async def send(peer: RawPeer, pieces: Sequence[bytes]) -> None:
    for at, piece in enumerate(pieces):
        if at:
            await asyncio.sleep(GAP_S if len(pieces) < 5 else 0)
        await peer.send(piece)


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("way", WAYS)
def test_the_request_is_answered_and_executed_once(
    server: ServerProcess, ports: dict[str, int], way: str, offer: str
) -> None:
    """However it is cut, and the connection goes on with the next request, which asks for the same or for nothing."""
    channel = f"once-{way}-{offer}".replace(" ", "-")
    kinds = [saying, calling] if way == "direct" else [saying]

    async def scenario() -> None:
        expected: list[int] = []
        for kind in kinds:
            for at in range(5):
                async with await RawPeer.connect_tcp(ports[way]) as peer:
                    for request in (kind(channel, len(expected), offer), kind(channel, len(expected) + 1)):
                        await send(peer, cuts(*request)[at])
                        assert (await answer(peer)).status == 200
                        expected.append(len(expected))
                assert await published(server, channel) == expected

    run_scenario(scenario())


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("way", WAYS)
def test_a_body_is_never_executed(server: ServerProcess, ports: dict[str, int], way: str, offer: str) -> None:
    """A body that is a call of the server API, key and all, is a bad body. A large one reaches nginx's disk."""
    channel = f"never-{way}-{offer}".replace(" ", "-")

    async def scenario() -> None:
        for size in (0, 40_000):
            head, body = post(COMMANDS, b"".join(calling(channel, 666, size=size)), offer)
            for pieces in ([head + body], [head, body], [head + body[:1], body[1:]]):
                async with await RawPeer.connect_tcp(ports[way]) as peer:
                    await send(peer, pieces)
                    assert (await answer(peer)).status == 400
                    await send(peer, saying(channel, 1))
                    assert (await answer(peer)).status == 200
        assert await published(server, channel) == [1] * 6

    run_scenario(scenario())


def test_several_requests_at_once(server: ServerProcess, ports: dict[str, int]) -> None:
    """Each is answered, in order, wherever the whole of them is cut."""
    offers = ["h2c", "none", "websocket", "TLS", "h2c"]
    head = post(COMMANDS, b"", "none")[0]

    async def scenario() -> None:
        requests = [calling("several", number, offer) for number, offer in enumerate(offers)]
        whole = b"".join(part for request in requests for part in request)
        for count, cut in enumerate(range(1, len(whole), len(head)), start=1):
            async with await RawPeer.connect_tcp(ports["direct"]) as peer:
                await send(peer, [whole[:cut], whole[cut:]])
                assert [(await answer(peer)).status for _ in offers] == [200] * len(offers)
            tail = (await published(server, "several"))[-100:]
            assert tail == (list(range(len(offers))) * count)[-100:]

    run_scenario(scenario())


@pytest.mark.parametrize("way", WAYS[1:])
def test_what_is_not_for_everybody_stays_inside(ports: dict[str, int], way: str) -> None:
    """The proxy refuses it, in every spelling that the server understands."""

    async def scenario() -> None:
        for path in ("/api/publish", "/%61pi/publish", "/metrics", "/health/ready"):
            async with await RawPeer.connect_tcp(ports[way]) as peer:
                await peer.send(*post(path, b"{}", "h2c"))
                assert (await answer(peer)).status == 403, path

    run_scenario(scenario())


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "WEBSOCKET"])
@pytest.mark.parametrize("way", WAYS)
def test_websockets_still_get_through(ports: dict[str, int], way: str, upgrade: str) -> None:
    """On a fresh connection, and on one that has carried an ordinary request and an ignored upgrade."""
    room = f"room-{way}-{upgrade}".replace(" ", "-")
    request = encode_upgrade_request().replace(b"Upgrade: websocket", f"Upgrade: {upgrade}".encode(), 1)

    async def scenario() -> None:
        async with JSONClient.connect(ports[way], channels=[room]) as listener:
            peer = await RawPeer.connect_tcp(ports[way])
            await peer.send(b"GET /client/beaconfire.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await answer(peer)).status == 200
            await send(peer, saying(room, 1, "h2c"))
            assert (await answer(peer)).status == 200
            await peer.send(request)
            assert (await peer.read_response_head()).status == 101
            client = JSONClient(peer)
            try:
                assert "connect" in await client.request(connect={})
                assert "subscribe" in await client.request(subscribe={"channel": room})
                await client.publish(room, 2)
                await wait_until(lambda: listener.received_data(room) == [1, 2], "the listener has both")
            finally:
                await client.disconnect()

    run_scenario(scenario())
