"""Small requests with large responses that the peer does not read. The server limits each response in advance."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import SMALL_BUFFER, RawPeer, encode_post
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import count_limit_hits, megabytes
from tests.kernel import send_queues

TEXT_BYTES = 60_000
HISTORY_SIZE = 100
CHANNELS = [f"full{number}" for number in range(10)]
PEERS = 10

RESPONSE_MEMORY_MAX = megabytes(4)
"""The most memory that one unread response takes, in process and kernel together (docs/operations/abuse.md)."""

SendRequest = Callable[[RawPeer], Awaitable[None]]


def post(path: str, **body: Any) -> SendRequest:
    """Returns a function that sends a POST request with this JSON body and reads nothing."""

    async def send_request(peer: RawPeer) -> None:
        await peer.send(encode_post(path, json.dumps(body).encode()))

    return send_request


def recover_all() -> dict[str, Any]:
    """Subscriptions to all channels with recovery from the start of each channel."""
    return {channel: {"recover": True, "offset": 0, "epoch": ""} for channel in CHANNELS}


HISTORY = {"history": {"channel": CHANNELS[0], "limit": HISTORY_SIZE}}

REQUESTS: dict[str, SendRequest] = {
    "commands": post("/connection/commands", commands=[HISTORY] * 100),
    "poll": post("/connection/poll", subs=recover_all()),
    "uni_http_stream": post("/connection/uni_http_stream", subs=recover_all()),
    "uni_sse": post("/connection/uni_sse", subs=recover_all()),
    "http_stream": post("/connection/http_stream", id=1, connect={"subs": recover_all()}),
    "api batch": post("/api/batch", commands=[HISTORY] * 100),
}


async def fill_channels(server: ServerProcess) -> None:
    """Fills the history of each channel: 6 MB per channel."""
    data = {"text": "x" * TEXT_BYTES}
    async with httpx.AsyncClient(base_url=server.http, timeout=20) as http:
        for start in range(0, HISTORY_SIZE, 50):
            for channel in CHANNELS:
                commands = [{"publish": {"channel": channel, "data": data}}] * min(50, HISTORY_SIZE - start)
                response = await http.post("/api/batch", json={"commands": commands})
                assert response.json()["replies"][-1]["publish"]["offset"] == start + len(commands)


@pytest.fixture(scope="module")
def server_with_history(permissive_server: ServerProcess) -> ServerProcess:
    """A server with ten channels, each with a history of 100 publications of 60 KB."""
    run_scenario(fill_channels(permissive_server))
    return permissive_server


@asynccontextmanager
async def peers_with_bounded_memory(
    server: ServerProcess, connect: Callable[[], Awaitable[RawPeer]]
) -> AsyncIterator[list[RawPeer]]:
    """Opens peers. Fails if process and kernel together use more than `RESPONSE_MEMORY_MAX` per peer at any time."""
    before = server.resident_bytes()
    peak = 0

    async def measure() -> None:
        nonlocal peak
        while True:
            peak = max(peak, server.resident_bytes() - before + sum(send_queues(server.port)))
            await asyncio.sleep(0.02)

    measuring = asyncio.create_task(measure())
    peers = [await connect() for _ in range(PEERS)]
    try:
        async with undisturbed_traffic(server):
            yield peers
    finally:
        measuring.cancel()
        for peer in peers:
            peer.close()
    assert peak < PEERS * RESPONSE_MEMORY_MAX


@pytest.mark.parametrize("send_request", REQUESTS.values(), ids=REQUESTS.keys())
def test_unread_responses_use_bounded_memory(server_with_history: ServerProcess, send_request: SendRequest) -> None:
    """Ten peers request all stored data at once: memory stays within the limit, and other clients are undisturbed."""

    async def scenario() -> None:
        async with peers_with_bounded_memory(
            server_with_history, lambda: RawPeer.connect_tcp(server_with_history.port, receive_buffer=SMALL_BUFFER)
        ) as peers:
            for peer in peers:
                await send_request(peer)
            for peer in peers:
                assert (await peer.read_response_head()).status == 200

    run_scenario(scenario())


def test_unread_recovery_on_websockets_uses_bounded_memory(server_with_history: ServerProcess) -> None:
    """A connect of 700 bytes recovers 60 MB. The server sends a piece only after the peer has read the piece before."""

    async def scenario() -> None:
        async with peers_with_bounded_memory(
            server_with_history,
            lambda: RawPeer.connect_websocket(server_with_history.port, receive_buffer=SMALL_BUFFER),
        ) as peers:
            for peer in peers:
                await peer.send_json({"id": 1, "connect": {"subs": recover_all()}})
            for peer in peers:
                await peer.read_bytes(2)

    run_scenario(scenario())


def test_reader_receives_complete_recovery(server_with_history: ServerProcess) -> None:
    """A client that reads receives 60 MB in pieces: all publications of ten channels, each channel in order."""

    async def scenario() -> None:
        client = JSONClient(await RawPeer.connect_websocket(server_with_history.port))
        try:
            subs = (await client.request(connect={"subs": recover_all()}))["connect"]["subs"]
            in_reply = {channel: subs[channel].get("publications", []) for channel in CHANNELS}
            assert all(subs[channel]["recovered"] for channel in CHANNELS)

            def offsets(channel: str) -> list[int]:
                pushed = client.publications.get(channel, [])
                return [
                    *(publication["offset"] for publication in in_reply[channel]),
                    *(each.offset for each in pushed),
                ]

            await wait_until(
                lambda: all(len(offsets(channel)) >= HISTORY_SIZE for channel in CHANNELS),
                "the client has all publications",
            )
            for channel in CHANNELS:
                assert offsets(channel) == list(range(1, HISTORY_SIZE + 1))
        finally:
            await client.disconnect()
        assert await count_limit_hits(server_with_history, "client.reply_max_size") > 0

    run_scenario(scenario())
