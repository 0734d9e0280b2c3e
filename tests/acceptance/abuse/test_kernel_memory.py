"""Kernel memory for peers that read nothing: bounded while they are connected, freed soon after they are disconnected.

The kernel would keep a connection that is closed without a reset, and all its unread data, for minutes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.acceptance.abuse.large_publications import publish_megabytes
from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import (
    CLOSE,
    SMALL_BUFFER,
    RawPeer,
    connect_and_subscribe,
    encode_frame,
    encode_post,
    open_peers,
)
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import count_limit_hits, read_metrics, session_end_code
from tests.kernel import send_queues

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the send queues of the kernel")

CHANNEL = "bare:unread"
SEND_BUFFER_MAX = 128 * 1024
"""The default of `server.send_buffer_max`."""

KERNEL_MAX = 2 * SEND_BUFFER_MAX
"""The most bytes that the kernel holds for one connection (docs/operations/abuse.md)."""

STALLED_PEERS = 20
HISTORY_REQUEST = b'{"channel":"heavy","limit":100}'


async def read_until_closed(peer: RawPeer) -> tuple[int, bool]:
    """Reads until the server closes the connection. Returns the bytes read and whether a reset closed it."""
    size = 0
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(5):
        try:
            while data := await loop.sock_recv(peer.socket, 1 << 20):
                size += len(data)
        except ConnectionResetError:
            return size, True
    return size, False


def full_queues(server: ServerProcess) -> list[int]:
    """The send queues of peers that read nothing, in bytes."""
    return [queue for queue in send_queues(server.port) if queue > SEND_BUFFER_MAX / 2]


async def wait_queues_dropped(server: ServerProcess, deadline_s: float) -> None:
    """Waits until the kernel holds no data of peers that read nothing. The queues of other clients are small."""
    await wait_until(
        lambda: max(send_queues(server.port), default=0) <= SMALL_BUFFER,
        "the kernel has dropped the unread data",
        deadline_s,
    )


async def assert_all_are_reset(peers: list[RawPeer]) -> None:
    for peer in peers:
        size, was_reset = await read_until_closed(peer)
        assert was_reset
        assert size <= KERNEL_MAX, "no data is delivered after the disconnect"


def test_kernel_memory_of_slow_peers_is_bounded_and_freed_after_the_close_timeout(start_server: StartServer) -> None:
    """Slow peers are disconnected with 3008. The metric `beaconfire_send_queue_bytes` shows what the kernel holds."""
    server = start_server({"websocket.close_timeout": "2s"})

    async def scenario() -> None:
        async with (
            undisturbed_traffic(server),
            open_peers(
                STALLED_PEERS, lambda: RawPeer.connect_websocket(server.port, receive_buffer=SMALL_BUFFER)
            ) as peers,
        ):
            clients = [await connect_and_subscribe(peer, CHANNEL) for peer in peers]
            publishing = asyncio.create_task(publish_megabytes(server, 6, CHANNEL))
            await wait_until(lambda: len(full_queues(server)) == STALLED_PEERS, "all receive buffers are full")
            queued_bytes = (await read_metrics(server))["beaconfire_send_queue_bytes"]
            assert max(full_queues(server)) <= KERNEL_MAX
            assert STALLED_PEERS * SEND_BUFFER_MAX / 2 < queued_bytes <= STALLED_PEERS * KERNEL_MAX
            await publishing
            await wait_until(
                lambda: all(session_end_code(server, client) == 3008 for client in clients),
                "all peers are disconnected",
            )
            await wait_queues_dropped(server, deadline_s=6)
            assert await count_limit_hits(server, "websocket.close_timeout") == STALLED_PEERS
            await assert_all_are_reset(peers)

    run_scenario(scenario())


def test_peer_that_reads_nothing_for_the_write_timeout_is_reset(start_server: StartServer) -> None:
    """The server resets the connection at once: no close timeout follows the write timeout."""
    server = start_server({"websocket.write_timeout": "1s", "client.queue_max_size": "64MiB"})

    async def scenario() -> None:
        async with (
            await RawPeer.connect_websocket(server.port, receive_buffer=SMALL_BUFFER) as peer,
            undisturbed_traffic(server),
        ):
            client = await connect_and_subscribe(peer, CHANNEL)
            await publish_megabytes(server, 2, CHANNEL)
            await wait_until(lambda: session_end_code(server, client) == 3009, "the peer is disconnected")
            await wait_queues_dropped(server, deadline_s=3)
            await assert_all_are_reset([peer])

    run_scenario(scenario())


def test_kernel_drops_unread_data_of_peers_that_close_without_reading(start_server: StartServer) -> None:
    """The peers send a close frame or `Connection: close`. Their unread data fits into the kernel's buffers."""
    server = start_server({"websocket.close_timeout": "1s", "server.keep_alive_timeout": "1s"})

    async def scenario() -> None:
        request = encode_post("/api/history", HISTORY_REQUEST, [("Connection", "close")])
        async with (
            undisturbed_traffic(server),
            JSONClient.connect(server.port) as publisher,
            open_peers(
                5, lambda: RawPeer.connect_websocket(server.port, receive_buffer=SMALL_BUFFER)
            ) as websocket_peers,
            open_peers(5, lambda: RawPeer.connect_tcp(server.port, receive_buffer=SMALL_BUFFER)) as http_peers,
        ):
            for peer in websocket_peers:
                await connect_and_subscribe(peer, "heavy")
            await publisher.publish("heavy", "x" * 50_000)
            for peer in http_peers:
                await peer.send(request)
            for peer in websocket_peers:
                await peer.send(encode_frame(CLOSE, b"\x03\xe8"))
            await wait_until(
                lambda: len([queue for queue in send_queues(server.port) if queue > 9999]) == 10,
                "all peers have unread data",
            )
            await wait_queues_dropped(server, deadline_s=8)
            assert [
                was_reset for _, was_reset in [await read_until_closed(peer) for peer in websocket_peers + http_peers]
            ] == [True] * 10

    run_scenario(scenario())


def stream_log_lines(server: ServerProcess, action: str, kind: str) -> list[dict[str, Any]]:
    """The log lines of the session with this transport."""
    return [line for line in server.log_lines(action) if line["transport"] == kind]


@asynccontextmanager
async def open_unread_stream(server: ServerProcess, kind: str) -> AsyncIterator[RawPeer]:
    """Opens a stream with a subscription and reads nothing."""
    body = json.dumps({"subs": {CHANNEL: {}}}).encode()
    request = encode_post(f"/connection/{kind}", body, [("Connection", "close")])
    async with await RawPeer.connect_tcp(server.port, receive_buffer=SMALL_BUFFER) as peer:
        await peer.send(request)
        await wait_until(lambda: bool(stream_log_lines(server, "session_connected", kind)), "the stream is open")
        yield peer


@pytest.mark.parametrize("kind", ["uni_http_stream", "uni_sse"])
def test_unread_stream_is_reset_after_its_close_timeout(start_server: StartServer, kind: str) -> None:
    """The close timeout of the stream applies, not the timeout of HTTP responses."""
    server = start_server({f"{kind}.close_timeout": "1s"})

    async def scenario() -> None:
        async with undisturbed_traffic(server), open_unread_stream(server, kind) as peer:
            await publish_megabytes(server, 6, CHANNEL)
            assert max(send_queues(server.port), default=0) <= KERNEL_MAX
            await wait_until(lambda: bool(stream_log_lines(server, "session_ended", kind)), "the session has ended")
            assert stream_log_lines(server, "session_ended", kind)[0]["code"] == 3008
            await wait_queues_dropped(server, deadline_s=5)
            assert await count_limit_hits(server, f"{kind}.close_timeout") == 1
            await assert_all_are_reset([peer])

    run_scenario(scenario())


@pytest.mark.parametrize("kind", ["uni_http_stream", "uni_sse"])
def test_slow_stream_that_is_read_before_the_close_timeout_gets_the_disconnect(
    start_server: StartServer, kind: str
) -> None:
    """The client receives the data that was already written, and then the disconnect with its code."""
    server = start_server({f"{kind}.close_timeout": "10s"})

    async def scenario() -> None:
        async with undisturbed_traffic(server), open_unread_stream(server, kind) as peer:
            await publish_megabytes(server, 6, CHANNEL)
            await wait_until(lambda: bool(stream_log_lines(server, "session_ended", kind)), "the session has ended")
            received = await peer.read_to_end()
            assert b'"disconnect":{"code":3008' in received
            assert received.endswith(b"\r\n0\r\n\r\n"), "the response is complete"
            assert await count_limit_hits(server, f"{kind}.close_timeout") == 0

    run_scenario(scenario())


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_unread_http_response_is_dropped_after_the_keep_alive_timeout(
    start_server: StartServer, connection: str
) -> None:
    """The timeout is the same for `Connection: keep-alive` and `Connection: close`."""
    server = start_server({"server.keep_alive_timeout": "1s"})

    async def scenario() -> None:
        async with JSONClient.connect(server.port) as publisher:
            for _ in range(100):
                await publisher.publish("heavy", "x" * 50_000)
        async with (
            undisturbed_traffic(server),
            open_peers(5, lambda: RawPeer.connect_tcp(server.port, receive_buffer=SMALL_BUFFER)) as peers,
        ):
            for peer in peers:
                await peer.send(encode_post("/api/history", HISTORY_REQUEST, [("Connection", connection)]))
            await wait_until(lambda: len(full_queues(server)) == 5, "all send queues are full")
            assert max(send_queues(server.port), default=0) <= KERNEL_MAX
            await wait_queues_dropped(server, deadline_s=4)
            assert await count_limit_hits(server, "server.keep_alive_timeout") == 5
            await assert_all_are_reset(peers)

    run_scenario(scenario())
