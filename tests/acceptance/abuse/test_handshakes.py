"""HTTP and TLS handshakes that are slow, too large or invalid."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.deadlines import run_scenario
from tests.acceptance.raw_peer import RawPeer, encode_upgrade_request, open_peers
from tests.acceptance.server_process import PERMISSIVE_CONFIG, ServerProcess
from tests.acceptance.server_state import (
    assert_healthy,
    count_limit_hits,
    healthy_server,
    megabytes,
)
from tests.conformance.websocket.test_tls import make_certificate

TIMEOUT_S = 1.0
SLACK_S = 2.0


@pytest.fixture(scope="module")
def short_timeout_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a short handshake timeout and a small limit for headers."""
    overrides = {"server.handshake_timeout": f"{TIMEOUT_S}s", "server.header_max_size": "8KiB"}
    with healthy_server(tmp_path_factory.mktemp("short_timeout_server"), overrides) as process:
        yield process


async def send_slowly(peer: RawPeer) -> None:
    """Sends an upgrade request byte by byte, so that the request would take a minute."""
    try:
        for byte in encode_upgrade_request():
            await peer.send(bytes([byte]))
            await asyncio.sleep(0.3)
    except OSError:
        return  # the server closed the connection


def test_slow_handshake_is_closed_after_the_handshake_timeout(short_timeout_server: ServerProcess) -> None:
    """200 connections send their request byte by byte, and 200 send nothing. All are closed within the timeout."""

    async def scenario() -> None:
        hits_before = await count_limit_hits(short_timeout_server, "server.handshake_timeout")
        before = short_timeout_server.resident_bytes()
        started_s = time.monotonic()
        async with (
            undisturbed_traffic(short_timeout_server),
            open_peers(400, lambda: RawPeer.connect_tcp(short_timeout_server.port)) as peers,
        ):
            assert short_timeout_server.resident_bytes() - before < megabytes(12)
            tasks = [asyncio.create_task(send_slowly(peer)) for peer in peers[:200]]
            await asyncio.gather(*(peer.wait_closed() for peer in peers))
            assert TIMEOUT_S - 0.2 < time.monotonic() - started_s < TIMEOUT_S + SLACK_S
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await count_limit_hits(short_timeout_server, "server.handshake_timeout") == hits_before + 400

    run_scenario(scenario())


def test_slow_tls_handshake_is_closed_after_the_handshake_timeout(tmp_path: Path) -> None:
    """The same timeout applies to TLS handshakes. The peers send nothing, or an incomplete ClientHello."""
    certificate = make_certificate(tmp_path)
    tls = {"server.tls_cert": str(certificate), "server.tls_key": str(certificate)}
    overrides = tls | {"server.handshake_timeout": f"{TIMEOUT_S}s"}

    async def scenario(server: ServerProcess) -> None:
        started_s = time.monotonic()
        async with open_peers(40, lambda: RawPeer.connect_tcp(server.port)) as peers:
            for peer in peers[:20]:
                await peer.send(b"\x16\x03\x01\x02\x00\x01\x00")
            await asyncio.gather(*(peer.wait_closed() for peer in peers))
        assert time.monotonic() - started_s < TIMEOUT_S + SLACK_S

    with ServerProcess(tmp_path, PERMISSIVE_CONFIG, overrides) as server:
        run_scenario(scenario(server))
        assert_healthy(server)


OVERSIZED_HEADERS = {
    "one header": [("X-Large", "x" * 1_000_000)],
    "many headers": [(f"X-Large-{number}", "x" * 50) for number in range(2000)],
    "long path": [],
}


@pytest.mark.parametrize("kind", OVERSIZED_HEADERS)
def test_request_head_beyond_header_max_size_is_refused_with_431(
    short_timeout_server: ServerProcess, kind: str
) -> None:
    """The server closes the connection before it reads the rest of the request head."""

    async def scenario() -> None:
        hits_before = await count_limit_hits(short_timeout_server, "server.header_max_size")
        before = short_timeout_server.resident_bytes()
        async with (
            undisturbed_traffic(short_timeout_server),
            await RawPeer.connect_tcp(short_timeout_server.port) as peer,
        ):
            path = "/connection/websocket?" + ("x" * 100_000 if kind == "long path" else "")
            try:
                await peer.send(encode_upgrade_request(path, OVERSIZED_HEADERS[kind]))
            except OSError:
                pass  # the server sent 431 and reset the connection
            else:
                assert (await peer.read_response_head()).status == 431
            await peer.wait_closed()
        assert await count_limit_hits(short_timeout_server, "server.header_max_size") == hits_before + 1
        assert short_timeout_server.resident_bytes() - before < megabytes(3)

    run_scenario(scenario())


def test_unfinished_headers_beyond_header_max_size_are_refused_with_431(short_timeout_server: ServerProcess) -> None:
    """The server refuses headers at the limit, before the handshake timeout."""

    async def scenario() -> None:
        hits_before = await count_limit_hits(short_timeout_server, "server.header_max_size")
        async with (
            undisturbed_traffic(short_timeout_server),
            await RawPeer.connect_tcp(short_timeout_server.port) as peer,
        ):
            await peer.send(encode_upgrade_request()[:-2])
            for _ in range(9):
                await peer.send(b"X-More: " + b"x" * 1024 + b"\r\n")
            assert (await peer.read_response_head()).status == 431
        assert await count_limit_hits(short_timeout_server, "server.header_max_size") == hits_before + 1

    run_scenario(scenario())


INVALID_HANDSHAKES = {
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello", 400),
    "garbage": (b"\x00" * 100 + b"\r\n\r\n", 400),
    "no key": (b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 426),
    "unknown path": (encode_upgrade_request("/nowhere"), 404),
    "POST": (encode_upgrade_request(headers=[("Connection", "close")]).replace(b"GET", b"POST", 1), 405),
    "HTTP/1.0": (encode_upgrade_request().replace(b"HTTP/1.1", b"HTTP/1.0", 1), 400),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), 400),
    "with a body": (encode_upgrade_request(headers=[("Content-Length", "3")]) + b"abc", 400),
}


@pytest.mark.parametrize("kind", INVALID_HANDSHAKES)
def test_invalid_handshake_gets_its_http_status(short_timeout_server: ServerProcess, kind: str) -> None:
    """The server closes the connection after the response."""
    request, status = INVALID_HANDSHAKES[kind]

    async def scenario() -> None:
        async with (
            undisturbed_traffic(short_timeout_server),
            await RawPeer.connect_tcp(short_timeout_server.port) as peer,
        ):
            await peer.send(request)
            assert (await peer.read_response_head()).status == status
            await peer.wait_closed()

    run_scenario(scenario())
