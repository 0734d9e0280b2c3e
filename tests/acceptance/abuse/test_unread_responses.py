"""Small requests whose answers would be large, and which nobody reads: each answer is bounded before it is built."""

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
from tests.acceptance.raw_peer import RawPeer
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import count_limit_hits, megabytes
from tests.kernel import send_queues

TEXT_BYTES = 60_000
KEPT = 100
CHANNELS = [f"full{number}" for number in range(10)]
PEERS = 10

ANSWER_MAX = megabytes(4)
"""What docs/operations/abuse.md says that one unread answer costs at most, process and kernel together."""

Ask = Callable[[RawPeer], Awaitable[None]]


def post(path: str, **body: Any) -> Ask:
    """Sends a request and reads nothing."""

    async def ask(peer: RawPeer) -> None:
        text = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n\r\n".encode()
        await peer.send(head, text)

    return ask


def positions() -> dict[str, Any]:
    return {channel: {"recover": True, "offset": 0, "epoch": ""} for channel in CHANNELS}


HISTORY = {"history": {"channel": CHANNELS[0], "limit": KEPT}}

UNREAD: dict[str, Ask] = {
    "commands": post("/connection/commands", commands=[HISTORY] * 100),
    "poll": post("/connection/poll", subs=positions()),
    "uni_http_stream": post("/connection/uni_http_stream", subs=positions()),
    "uni_sse": post("/connection/uni_sse", subs=positions()),
    "http_stream": post("/connection/http_stream", id=1, connect={"subs": positions()}),
    "api batch": post("/api/batch", commands=[HISTORY] * 100),
}


async def fill_channels(server: ServerProcess) -> None:
    """Publishes what the channels keep: 6 MB each."""
    data = {"text": "x" * TEXT_BYTES}
    async with httpx.AsyncClient(base_url=server.http, timeout=20) as http:
        for start in range(0, KEPT, 50):
            for channel in CHANNELS:
                commands = [{"publish": {"channel": channel, "data": data}}] * min(50, KEPT - start)
                answer = await http.post("/api/batch", json={"commands": commands})
                assert answer.json()["replies"][-1]["publish"]["offset"] == start + len(commands)


@pytest.fixture(scope="module")
def server_with_history(permissive_server: ServerProcess) -> ServerProcess:
    """A server with ten channels that are full, each of 100 publications of 60 KB."""
    run_scenario(fill_channels(permissive_server))
    return permissive_server


@asynccontextmanager
async def costing_little(server: ServerProcess, dial: Callable[[], Awaitable[RawPeer]]) -> AsyncIterator[list[RawPeer]]:
    """Peers that read only what the test does. Fails if process and kernel take more for them than they may."""
    before = server.resident_bytes()
    most = 0

    async def measure() -> None:
        nonlocal most
        while True:
            most = max(most, server.resident_bytes() - before + sum(send_queues(server.port)))
            await asyncio.sleep(0.02)

    measuring = asyncio.create_task(measure())
    peers = [await dial() for _ in range(PEERS)]
    try:
        async with undisturbed_traffic(server):
            yield peers
    finally:
        measuring.cancel()
        for peer in peers:
            peer.close()
    assert most < PEERS * ANSWER_MAX


@pytest.mark.parametrize("ask", UNREAD.values(), ids=UNREAD.keys())
def test_answers_that_nobody_reads_cost_little(server_with_history: ServerProcess, ask: Ask) -> None:
    """Ten requests at once, each for all there is: memory stays within the bound, and the neighbours notice nothing."""

    async def scenario() -> None:
        async with costing_little(
            server_with_history, lambda: RawPeer.connect_tcp(server_with_history.port, receive_buffer=4096)
        ) as peers:
            for peer in peers:
                await ask(peer)
            for peer in peers:
                assert (await peer.read_response_head()).status == 200

    run_scenario(scenario())


def test_websockets_that_recover_and_never_read_cost_little(server_with_history: ServerProcess) -> None:
    """A connect of 700 bytes asks for 60 MB. It gets one piece, and no more before it has read that."""

    async def scenario() -> None:
        async with costing_little(
            server_with_history, lambda: RawPeer.connect_websocket(server_with_history.port, receive_buffer=4096)
        ) as peers:
            for peer in peers:
                await peer.send_json({"id": 1, "connect": {"subs": positions()}})
            for peer in peers:
                await peer.read_bytes(2)

    run_scenario(scenario())


def test_who_reads_gets_all_of_it(server_with_history: ServerProcess) -> None:
    """60 MB in pieces, over one WebSocket: every publication of ten channels, in order, and then what is new."""

    async def scenario() -> None:
        client = JSONClient(await RawPeer.connect_websocket(server_with_history.port))
        try:
            subs = (await client.request(connect={"subs": positions()}))["connect"]["subs"]
            first = {channel: subs[channel].get("publications", []) for channel in CHANNELS}
            assert all(subs[channel]["recovered"] for channel in CHANNELS)

            def offsets(channel: str) -> list[int]:
                pushed = client.publications.get(channel, [])
                return [*(publication["offset"] for publication in first[channel]), *(each.offset for each in pushed)]

            await wait_until(lambda: all(len(offsets(channel)) >= KEPT for channel in CHANNELS), "all is here")
            for channel in CHANNELS:
                assert offsets(channel) == list(range(1, KEPT + 1))
        finally:
            await client.disconnect()
        assert await count_limit_hits(server_with_history, "client.reply_max_size") > 0

    run_scenario(scenario())
