"""A WebSocket on a connection whose peer has not read earlier answers: the limits are those of WebSockets from then on.

The server starts with a short `server.keep_alive_timeout`, which must not concern the connection any more.
"""

from __future__ import annotations

import asyncio
import json

from tests.acceptance.background_traffic import CHANNEL, undisturbed_traffic
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.raw_peer import NATIVE_PATH, RawPeer, connect_and_subscribe, encode_upgrade_request
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import count_limit_hits, http_request
from tests.kernel import send_queues

ROOM = "json:answers"
SMALL_BUFFER = 2048
SETTINGS = {
    "server.keep_alive_timeout": "1s",
    "websocket.write_timeout": "2s",
    "websocket.close_timeout": "1s",
    "namespaces.json.history_size": "1",
    "namespaces.json.history_ttl": "300s",
}


async def upgraded_unread(server: ServerProcess, path: str) -> tuple[RawPeer, int]:
    """A peer that has asked for a WebSocket behind answers that it has not read, all of which the server has given.

    Also how many answers. The last few, of 8 KB each, are in the server's own buffer.
    """
    await http_request(server, "/api/publish", json.dumps({"channel": ROOM, "data": "x" * 8000}).encode())
    call = json.dumps({"channel": ROOM, "limit": 1}).encode()
    request = b"POST /api/history HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(call), call)
    peer = await RawPeer.connect_tcp(server.port, receive_buffer=SMALL_BUFFER)
    queued, count = -1, 0
    while not count or sum(send_queues(server.port)) > queued:
        queued = sum(send_queues(server.port))
        await peer.send(request)
        count += 1
        await http_request(server, "/health")  # the server has answered the request by the time it answers this
        assert count < 200
    await peer.send(encode_upgrade_request(path))
    await http_request(server, "/health")
    return peer, count


async def skip_answers(peer: RawPeer, count: int) -> None:
    for _ in range(count):
        response = await peer.read_response_head()
        assert response.status == 200
        await peer.read_bytes(int(response.headers["content-length"]))


def test_a_websocket_has_no_deadline_of_http(start_server: StartServer) -> None:
    """Whoever reads the earlier answers late keeps the WebSocket."""
    server = start_server(SETTINGS)

    async def scenario() -> None:
        peer, count = await upgraded_unread(server, NATIVE_PATH)
        async with peer:
            await skip_answers(peer, count)
            assert (await peer.read_response_head()).status == 101
            await asyncio.sleep(1.5)  # beyond the keep-alive timeout
            async with undisturbed_traffic(server):
                await connect_and_subscribe(peer, CHANNEL)
        assert await count_limit_hits(server, "server.keep_alive_timeout") == 0

    run_scenario(scenario())


def test_a_websocket_that_takes_nothing_from_the_beginning_is_cut(start_server: StartServer) -> None:
    """After the write timeout, although only the protocol before it was told of the full buffer."""
    server = start_server(SETTINGS)

    async def scenario() -> None:
        peer, _ = await upgraded_unread(server, NATIVE_PATH)
        async with peer:
            await wait_until(lambda: not send_queues(server.port), "it is cut", 8)
        assert await count_limit_hits(server, "websocket.write_timeout") == 1

    run_scenario(scenario())


def test_a_refused_upgrade_behind_unread_answers_is_cut(start_server: StartServer) -> None:
    """The connection is closing, and would wait for its reader for ever."""
    server = start_server(SETTINGS)

    async def scenario() -> None:
        peer, _ = await upgraded_unread(server, "/nowhere")
        async with peer:
            await wait_until(lambda: not send_queues(server.port), "it is cut", 8)
        assert await count_limit_hits(server, "websocket.close_timeout") == 1
        reader, count = await upgraded_unread(server, "/nowhere")
        async with reader:
            await skip_answers(reader, count)
            assert (await reader.read_response_head()).status == 404
            await reader.wait_closed()
        await asyncio.sleep(1.5)
        assert await count_limit_hits(server, "websocket.close_timeout") == 1

    run_scenario(scenario())
