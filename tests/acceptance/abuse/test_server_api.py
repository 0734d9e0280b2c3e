"""The server API receives requests without a key, with large or slow bodies, or too many at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import SMALL_BUFFER, RawPeer, encode_post, open_peers
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import count_descriptors, count_limit_hits, healthy_server, http_request, megabytes

KEY = {"X-API-Key": "api_key"}
PUBLISH = json.dumps({"channel": "bare:x", "data": {}}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose API needs a key, with a small limit for bodies and a short keep-alive timeout."""
    overrides = {"api.insecure": "false", "api.request_max_size": "64KiB", "server.keep_alive_timeout": "1s"}
    with healthy_server(tmp_path_factory.mktemp("server"), overrides) as process:
        yield process


REQUESTS: dict[str, tuple[str, bytes | None, dict[str, str], int]] = {
    "good": ("/api/publish", PUBLISH, KEY, 200),
    "no key": ("/api/publish", PUBLISH, {}, 401),
    "empty key": ("/api/publish", PUBLISH, {"X-API-Key": ""}, 401),
    "wrong key": ("/api/publish", PUBLISH, {"X-API-Key": "api_keyy"}, 401),
    "key that is not ASCII": ("/api/publish", PUBLISH, {"X-API-Key": "schlüssel"}, 401),
    "key with the wrong scheme": ("/api/publish", PUBLISH, {"Authorization": "Bearer api_key"}, 401),
    "body too large": ("/api/publish", b"x" * 65_537, KEY, 413),
    "body too large, no key": ("/api/publish", b"x" * 65_537, {}, 401),
    "garbage": ("/api/publish", b"\xff\x00 hello", KEY, 400),
    "half a body of JSON": ("/api/publish", PUBLISH[:-1], KEY, 400),
    "deep JSON": ("/api/publish", b'{"channel":"bare:x","data":' + b"[" * 30_000 + b"]" * 30_000 + b"}", KEY, 400),
    "unknown method": ("/api/fly", b"{}", KEY, 404),
    "by GET": ("/api/publish", None, KEY, 405),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_request_gets_the_status_of_its_error(server: ServerProcess, kind: str) -> None:
    """Each kind of bad request gets its HTTP status, and other clients are undisturbed."""
    path, body, headers, expected = REQUESTS[kind]

    async def scenario() -> None:
        async with undisturbed_traffic(server):
            assert (await http_request(server, path, body, headers))[0] == expected

    run_scenario(scenario())


def test_too_large_body_is_refused_with_413_before_it_is_read(server: ServerProcess) -> None:
    """The server refuses a too large `Content-Length` at once, and a chunked body when the body exceeds the limit."""

    async def scenario() -> None:
        before = server.resident_bytes()
        hits_before = await count_limit_hits(server, "api.request_max_size")
        head = b"POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: api_key\r\n"
        async with undisturbed_traffic(server):
            async with await RawPeer.connect_tcp(server.port) as peer_with_length:
                await peer_with_length.send(head, b"Content-Length: 1000000000000\r\n\r\n")
                assert (await peer_with_length.read_response_head()).status == 413
                await peer_with_length.wait_closed()
            async with await RawPeer.connect_tcp(server.port) as chunked_peer:
                chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
                await chunked_peer.send(head, b"Transfer-Encoding: chunked\r\n\r\n", chunk * 5)
                assert (await chunked_peer.read_response_head()).status == 413
                await chunked_peer.wait_closed()
        assert await count_limit_hits(server, "api.request_max_size") == hits_before + 2
        assert server.resident_bytes() - before < megabytes(2)

    run_scenario(scenario())


def test_request_with_unfinished_body_is_closed_after_the_keep_alive_timeout(server: ServerProcess) -> None:
    """200 requests with incomplete bodies are closed after `server.keep_alive_timeout`."""

    async def scenario() -> None:
        hits_before = await count_limit_hits(server, "server.keep_alive_timeout")
        head = b"POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: api_key\r\nContent-Length: 100\r\n\r\n{"
        async with undisturbed_traffic(server), open_peers(200, lambda: RawPeer.connect_tcp(server.port)) as peers:
            await asyncio.gather(*(peer.send(head) for peer in peers))
            await asyncio.gather(*(peer.wait_closed() for peer in peers))
        assert await count_limit_hits(server, "server.keep_alive_timeout") == hits_before + 200

    run_scenario(scenario())


def test_connection_with_unread_response_is_reset_after_the_keep_alive_timeout(server: ServerProcess) -> None:
    """A peer that requests megabytes and does not read them loses its connection, and the server frees the socket."""

    async def scenario() -> None:
        async with JSONClient.connect(server.port) as publisher:
            for _ in range(100):
                await publisher.publish("heavy", "x" * 50_000)
        body = b'{"channel":"heavy","limit":100}'
        descriptors = count_descriptors(server)
        hits_before = await count_limit_hits(server, "server.keep_alive_timeout")

        async def are_all_reset(total: int) -> bool:
            return await count_limit_hits(server, "server.keep_alive_timeout") == total

        async with (
            undisturbed_traffic(server),
            open_peers(5, lambda: RawPeer.connect_tcp(server.port, receive_buffer=SMALL_BUFFER)) as peers,
        ):
            for peer in peers:
                await peer.send(encode_post("/api/history", body, list(KEY.items())))
            await wait_until(lambda: are_all_reset(hits_before + 5), "all connections are reset")
            await wait_until(
                lambda: count_descriptors(server) <= descriptors + 2,
                "the sockets of all peers are closed",
            )

    run_scenario(scenario())


def test_pipelined_requests_are_answered_in_order(server: ServerProcess) -> None:
    """Pipelining is valid HTTP (RFC 9112 section 9.3.2): the responses have the order of the requests."""

    async def scenario() -> None:
        async with await RawPeer.connect_tcp(server.port) as peer:
            await peer.send(*(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in ("health", "no") * 5))
            for status in (200, 404) * 5:
                assert (await peer.read_response()).status == status

    run_scenario(scenario())


def test_connection_with_too_many_pipelined_requests_is_closed(server: ServerProcess) -> None:
    """20 connections send 7,000 requests each and are closed: a waiting request uses a hundred times its size."""

    async def scenario() -> None:
        before = server.resident_bytes()
        hits_before = await count_limit_hits(server, "http_pipeline_max")
        async with undisturbed_traffic(server), open_peers(20, lambda: RawPeer.connect_tcp(server.port)) as peers:
            await asyncio.gather(
                *(send_until_reset(peer, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 7000) for peer in peers)
            )
            await asyncio.gather(*(peer.wait_closed() for peer in peers))
        assert await count_limit_hits(server, "http_pipeline_max") == hits_before + 20
        assert server.resident_bytes() - before < megabytes(4)

    run_scenario(scenario())


async def send_until_reset(peer: RawPeer, data: bytes) -> None:
    try:
        await peer.send(data)
    except OSError:
        return  # the server reset the connection


def test_batch_beyond_batch_max_is_refused_with_error_107(server: ServerProcess) -> None:
    """A batch of 1,025 commands gets one error, and the server executes no command of the batch."""

    async def scenario() -> None:
        hits_before = await count_limit_hits(server, "api.batch_max")
        commands: list[dict[str, Any]] = [{"info": {}} for _ in range(1025)]
        async with undisturbed_traffic(server):
            status, body = await http_request(server, "/api/batch", json.dumps({"commands": commands}).encode(), KEY)
        assert (status, json.loads(body)["error"]["code"]) == (200, 107)
        assert await count_limit_hits(server, "api.batch_max") == hits_before + 1

    run_scenario(scenario())
