"""A WebSocket handshake on a connection with unread HTTP responses. From then on, the timeouts of WebSockets apply.

The server has a short `server.keep_alive_timeout`, which must not close the WebSocket.
"""

from __future__ import annotations

import asyncio
import json

from tests.acceptance.background_traffic import CHANNEL, undisturbed_traffic
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.raw_peer import NATIVE_PATH, RawPeer, connect_and_subscribe, encode_post, encode_upgrade_request
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import count_limit_hits, http_request
from tests.kernel import send_queues

HISTORY_CHANNEL = "json:responses"
SMALL_BUFFER = 2048
SETTINGS = {
    "server.keep_alive_timeout": "1s",
    "websocket.write_timeout": "2s",
    "websocket.close_timeout": "1s",
    "namespaces.json.history_size": "1",
    "namespaces.json.history_ttl": "300s",
}


async def send_upgrade_after_unread_responses(server: ServerProcess, path: str) -> tuple[RawPeer, int]:
    """Requests history until the kernel's buffers are full, then requests the upgrade. Reads nothing.

    Returns the peer and the number of unread responses, of 8 KB each. The server has written all of them; the last
    ones are in its own buffer.
    """
    await http_request(server, "/api/publish", json.dumps({"channel": HISTORY_CHANNEL, "data": "x" * 8000}).encode())
    request = encode_post("/api/history", json.dumps({"channel": HISTORY_CHANNEL, "limit": 1}).encode())
    peer = await RawPeer.connect_tcp(server.port, receive_buffer=SMALL_BUFFER)
    queued, count = -1, 0
    while not count or sum(send_queues(server.port)) > queued:
        queued = sum(send_queues(server.port))
        await peer.send(request)
        count += 1
        await http_request(server, "/health")  # once this is answered, the server has answered the request
        assert count < 200
    await peer.send(encode_upgrade_request(path))
    await http_request(server, "/health")
    return peer, count


async def read_responses(peer: RawPeer, count: int) -> None:
    for _ in range(count):
        assert (await peer.read_response()).status == 200


def test_keep_alive_timeout_does_not_apply_to_a_websocket(start_server: StartServer) -> None:
    """A peer that reads the earlier responses after the keep-alive timeout keeps its WebSocket."""
    server = start_server(SETTINGS)

    async def scenario() -> None:
        peer, count = await send_upgrade_after_unread_responses(server, NATIVE_PATH)
        async with peer:
            await read_responses(peer, count)
            assert (await peer.read_response_head()).status == 101
            await asyncio.sleep(1.5)  # longer than the keep-alive timeout
            async with undisturbed_traffic(server):
                await connect_and_subscribe(peer, CHANNEL)
        assert await count_limit_hits(server, "server.keep_alive_timeout") == 0

    run_scenario(scenario())


def test_websocket_that_reads_nothing_is_reset_after_the_write_timeout(start_server: StartServer) -> None:
    """The write timeout applies although the buffer became full before the upgrade, under the HTTP protocol object."""
    server = start_server(SETTINGS)

    async def scenario() -> None:
        peer, _ = await send_upgrade_after_unread_responses(server, NATIVE_PATH)
        async with peer:
            await wait_until(lambda: not send_queues(server.port), "the kernel has dropped the unread data", 8)
        assert await count_limit_hits(server, "websocket.write_timeout") == 1

    run_scenario(scenario())


def test_refused_upgrade_after_unread_responses_is_reset_after_the_close_timeout(start_server: StartServer) -> None:
    """A peer that reads gets 404 and is not counted. Without the timeout, the connection would never close."""
    server = start_server(SETTINGS)

    async def scenario() -> None:
        peer, _ = await send_upgrade_after_unread_responses(server, "/nowhere")
        async with peer:
            await wait_until(lambda: not send_queues(server.port), "the kernel has dropped the unread data", 8)
        assert await count_limit_hits(server, "websocket.close_timeout") == 1
        reader, count = await send_upgrade_after_unread_responses(server, "/nowhere")
        async with reader:
            await read_responses(reader, count)
            assert (await reader.read_response_head()).status == 404
            await reader.wait_closed()
        await asyncio.sleep(1.5)
        assert await count_limit_hits(server, "websocket.close_timeout") == 1

    run_scenario(scenario())
