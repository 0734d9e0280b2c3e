"""The HTTP API under people who have no key, no patience, or no sense of proportion."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import RawPeer, open_peers
from tests.acceptance.server_process import PERMISSIVE_CONFIG, ServerProcess
from tests.acceptance.server_state import assert_healthy, count_descriptors, count_limit_hits, http_request, megabytes

KEY = {"X-API-Key": "api_key"}
PUBLISH = json.dumps({"channel": "bare:x", "data": {}}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    overrides = {"api.insecure": "false", "api.request_max_size": "64KiB", "server.keep_alive_timeout": "1s"}
    with ServerProcess(tmp_path_factory.mktemp("server"), PERMISSIVE_CONFIG, overrides) as server:
        yield server
        assert_healthy(server)


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
def test_bad_requests_get_their_status(server: ServerProcess, kind: str) -> None:
    """And the room does not notice."""
    path, body, headers, expected = REQUESTS[kind]

    async def scenario() -> None:
        async with undisturbed_traffic(server):
            assert (await http_request(server, path, body, headers))[0] == expected

    run_scenario(scenario())


def test_a_huge_body_is_413_before_it_is_read(server: ServerProcess) -> None:
    """What is announced is enough to know; a body without a length is cut where it grows too large."""

    async def scenario() -> None:
        before = server.resident_bytes()
        hits_before = await count_limit_hits(server, "api.request_max_size")
        head = b"POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: api_key\r\n"
        async with undisturbed_traffic(server):
            async with await RawPeer.connect_tcp(server.port) as announcing:
                await announcing.send(head, b"Content-Length: 1000000000000\r\n\r\n")
                assert (await announcing.read_response_head()).status == 413
                await announcing.wait_closed()
            async with await RawPeer.connect_tcp(server.port) as chunking:
                chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
                await chunking.send(head, b"Transfer-Encoding: chunked\r\n\r\n", chunk * 5)
                assert (await chunking.read_response_head()).status == 413
                await chunking.wait_closed()
        assert await count_limit_hits(server, "api.request_max_size") == hits_before + 2
        assert server.resident_bytes() - before < megabytes(2)

    run_scenario(scenario())


def test_slow_bodies_are_cut(server: ServerProcess) -> None:
    """200 requests whose bodies never come are ended after the time that a body may take."""

    async def scenario() -> None:
        hits_before = await count_limit_hits(server, "server.keep_alive_timeout")
        head = b"POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: api_key\r\nContent-Length: 100\r\n\r\n{"
        async with undisturbed_traffic(server), open_peers(200, lambda: RawPeer.connect_tcp(server.port)) as peers:
            await asyncio.gather(*(peer.send(head) for peer in peers))
            await asyncio.gather(*(peer.wait_closed() for peer in peers))
        assert await count_limit_hits(server, "server.keep_alive_timeout") == hits_before + 200

    run_scenario(scenario())


def test_answers_that_nobody_reads_are_not_kept(server: ServerProcess) -> None:
    """Whoever asks for megabytes and does not read them is cut after the time an answer may take."""

    async def scenario() -> None:
        async with JSONClient.connect(server.port) as talker:
            for _ in range(100):
                await talker.publish("heavy", "x" * 50_000)
        body = b'{"channel":"heavy","limit":100}'
        head = f"POST /api/history HTTP/1.1\r\nHost: x\r\nX-API-Key: api_key\r\nContent-Length: {len(body)}\r\n\r\n"
        descriptors = count_descriptors(server)
        hits_before = await count_limit_hits(server, "server.keep_alive_timeout")

        async def all_cut(total: int) -> bool:
            return await count_limit_hits(server, "server.keep_alive_timeout") == total

        async with (
            undisturbed_traffic(server),
            open_peers(5, lambda: RawPeer.connect_tcp(server.port, receive_buffer=4096)) as peers,
        ):
            for peer in peers:
                await peer.send(head.encode(), body)
            await wait_until(lambda: all_cut(hits_before + 5), "all are cut")
            await wait_until(lambda: count_descriptors(server) <= descriptors + 2, "only the neighbours are left")

    run_scenario(scenario())


def test_a_few_pipelined_requests_are_answered(server: ServerProcess) -> None:
    """It is legal HTTP: the answers come in order."""

    async def scenario() -> None:
        async with await RawPeer.connect_tcp(server.port) as peer:
            await peer.send(*(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in ("health", "no") * 5))
            for status in (200, 404) * 5:
                response = await peer.read_response_head()
                assert response.status == status
                await peer.read_bytes(int(response.headers["content-length"]))

    run_scenario(scenario())


def test_thousands_of_pipelined_requests_are_not_kept(server: ServerProcess) -> None:
    """20 connections that send 7,000 requests at once are cut; waiting requests take a hundred times their size."""

    async def scenario() -> None:
        before = server.resident_bytes()
        hits_before = await count_limit_hits(server, "http_pipeline_max")
        async with undisturbed_traffic(server), open_peers(20, lambda: RawPeer.connect_tcp(server.port)) as peers:
            await asyncio.gather(*(flood(peer, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 7000) for peer in peers))
            await asyncio.gather(*(peer.wait_closed() for peer in peers))
        assert await count_limit_hits(server, "http_pipeline_max") == hits_before + 20
        assert server.resident_bytes() - before < megabytes(4)

    run_scenario(scenario())


async def flood(peer: RawPeer, data: bytes) -> None:
    try:
        await peer.send(data)
    except OSError:
        return  # cut meanwhile


def test_batches_and_channel_lists_without_end_are_refused(server: ServerProcess) -> None:
    """Beyond batch_max it is one error and no work."""

    async def scenario() -> None:
        hits_before = await count_limit_hits(server, "api.batch_max")
        commands: list[dict[str, Any]] = [{"info": {}} for _ in range(1025)]
        async with undisturbed_traffic(server):
            status, answer = await http_request(server, "/api/batch", json.dumps({"commands": commands}).encode(), KEY)
        assert (status, json.loads(answer)["error"]["code"]) == (200, 107)
        assert await count_limit_hits(server, "api.batch_max") == hits_before + 1

    run_scenario(scenario())
