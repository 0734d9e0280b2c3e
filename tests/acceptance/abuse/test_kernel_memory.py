"""What peers that do not read cost beyond the process: bounded while they are there, and gone soon after they are cut.

A connection that is closed politely stays in the kernel, with all that its peer has not read, for minutes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.acceptance.abuse.test_slow_readers import SMALL_BUFFER, fill
from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import CLOSE, RawPeer, connect_and_subscribe, encode_frame, open_peers
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import count_limit_hits, read_metrics, session_end_code
from tests.kernel import send_queues

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what their kernels hold")

ROOM = "bare:unread"
SEND_BUFFER_MAX = 128 * 1024
"""The default of `server.send_buffer_max`."""

KERNEL_MAX = 2 * SEND_BUFFER_MAX
"""What docs/operations/abuse.md says the kernel holds at most for one connection."""

STALLED = 20


async def read_on(peer: RawPeer) -> tuple[int, bool]:
    """Reads wait_until the server ends the connection: how much came, and whether a reset ended it."""
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
    """What the kernel holds for each peer that does not read, in bytes."""
    return [queue for queue in send_queues(server.port) if queue > SEND_BUFFER_MAX / 2]


async def gone(server: ServerProcess, within_s: float) -> None:
    """Returns when the kernel holds nothing any more of what peers do not read; others are sent to all the time."""
    await wait_until(
        lambda: max(send_queues(server.port), default=0) <= SMALL_BUFFER,
        "the kernel has dropped what nobody reads",
        within_s,
    )


async def all_are_reset(peers: list[RawPeer]) -> None:
    for peer in peers:
        size, was_reset = await read_on(peer)
        assert was_reset
        assert size <= KERNEL_MAX, "what is stale must not be delivered later"


def test_slow_readers_cost_the_kernel_little_and_nothing_once_they_are_cut(start_server: StartServer) -> None:
    """Told 3008 and given the close timeout: meanwhile the kernel holds a bounded amount, which is a figure, too."""
    server = start_server({"websocket.close_timeout": "2s"})

    async def scenario() -> None:
        async with (
            undisturbed_traffic(server),
            open_peers(STALLED, lambda: RawPeer.connect_websocket(server.port, receive_buffer=SMALL_BUFFER)) as peers,
        ):
            clients = [await connect_and_subscribe(peer, ROOM) for peer in peers]
            filling = asyncio.create_task(fill(server, 6, ROOM))
            await wait_until(lambda: len(full_queues(server)) == STALLED, "all have stopped taking anything")
            figure = (await read_metrics(server))["beaconfire_send_queue_bytes"]
            assert max(full_queues(server)) <= KERNEL_MAX
            assert STALLED * SEND_BUFFER_MAX / 2 < figure <= STALLED * KERNEL_MAX
            await filling
            await wait_until(
                lambda: all(session_end_code(server, client) == 3008 for client in clients), "all are slow"
            )
            await gone(server, within_s=6)
            assert await count_limit_hits(server, "websocket.close_timeout") == STALLED
            await all_are_reset(peers)

    run_scenario(scenario())


def test_who_takes_nothing_for_the_write_timeout_is_reset(start_server: StartServer) -> None:
    """There is nothing more to wait for, so it happens at once."""
    server = start_server({"websocket.write_timeout": "1s", "client.queue_max_size": "64MiB"})

    async def scenario() -> None:
        async with (
            await RawPeer.connect_websocket(server.port, receive_buffer=SMALL_BUFFER) as peer,
            undisturbed_traffic(server),
        ):
            client = await connect_and_subscribe(peer, ROOM)
            await fill(server, 2, ROOM)
            await wait_until(lambda: session_end_code(server, client) == 3009, "it is cut")
            await gone(server, within_s=3)
            await all_are_reset([peer])

    run_scenario(scenario())


def test_who_says_goodbye_without_reading_leaves_nothing_behind(start_server: StartServer) -> None:
    """WebSockets with a close frame, HTTP with `Connection: close`: what they leave unread fits into the kernel."""
    server = start_server({"websocket.close_timeout": "1s", "server.keep_alive_timeout": "1s"})

    async def scenario() -> None:
        body = b'{"channel":"heavy","limit":100}'
        head = f"POST /api/history HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        async with (
            undisturbed_traffic(server),
            JSONClient.connect(server.port) as talker,
            open_peers(5, lambda: RawPeer.connect_websocket(server.port, receive_buffer=SMALL_BUFFER)) as sockets,
            open_peers(5, lambda: RawPeer.connect_tcp(server.port, receive_buffer=SMALL_BUFFER)) as callers,
        ):
            for peer in sockets:
                await connect_and_subscribe(peer, "heavy")
            await talker.publish("heavy", "x" * 50_000)
            for peer in callers:
                await peer.send(head.encode(), body)
            for peer in sockets:
                await peer.send(encode_frame(CLOSE, b"\x03\xe8"))
            await wait_until(
                lambda: len([queue for queue in send_queues(server.port) if queue > 9999]) == 10, "all wait"
            )
            await gone(server, within_s=8)
            assert [was_reset for _, was_reset in [await read_on(peer) for peer in sockets + callers]] == [True] * 10

    run_scenario(scenario())


def of_stream(server: ServerProcess, action: str, kind: str) -> list[dict[str, Any]]:
    """Log lines about the one session that is a stream."""
    return [line for line in server.log_lines(action) if line["transport"] == kind]


@asynccontextmanager
async def listening(server: ServerProcess, kind: str) -> AsyncIterator[RawPeer]:
    """A peer that has opened a stream, has subscribed, and reads nothing."""
    body = json.dumps({"subs": {ROOM: {}}}).encode()
    head = f"POST /connection/{kind} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    async with await RawPeer.connect_tcp(server.port, receive_buffer=SMALL_BUFFER) as peer:
        await peer.send(head.encode(), body)
        await wait_until(lambda: bool(of_stream(server, "session_connected", kind)), "the stream has begun")
        yield peer


@pytest.mark.parametrize("kind", ["uni_http_stream", "uni_sse"])
def test_streams_that_nobody_reads_are_reset(start_server: StartServer, kind: str) -> None:
    """A slow stream ends after its own close timeout, however long an HTTP answer may take otherwise."""
    server = start_server({f"{kind}.close_timeout": "1s"})

    async def scenario() -> None:
        async with undisturbed_traffic(server), listening(server, kind) as peer:
            await fill(server, 6, ROOM)
            assert max(send_queues(server.port), default=0) <= KERNEL_MAX
            await wait_until(lambda: bool(of_stream(server, "session_ended", kind)), "it has ended")
            assert of_stream(server, "session_ended", kind)[0]["code"] == 3008
            await gone(server, within_s=5)
            assert await count_limit_hits(server, f"{kind}.close_timeout") == 1
            await all_are_reset([peer])

    run_scenario(scenario())


@pytest.mark.parametrize("kind", ["uni_http_stream", "uni_sse"])
def test_a_stream_that_is_read_again_in_time_ends_politely(start_server: StartServer, kind: str) -> None:
    """Its client gets what was under way and why the stream ends."""
    server = start_server({f"{kind}.close_timeout": "10s"})

    async def scenario() -> None:
        async with undisturbed_traffic(server), listening(server, kind) as peer:
            await fill(server, 6, ROOM)
            await wait_until(lambda: bool(of_stream(server, "session_ended", kind)), "it has ended")
            received = await peer.read_to_end()
            assert b'"disconnect":{"code":3008' in received
            assert received.endswith(b"\r\n0\r\n\r\n"), "the response is whole"
            assert await count_limit_hits(server, f"{kind}.close_timeout") == 0

    run_scenario(scenario())


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_answers_that_nobody_reads_are_dropped(start_server: StartServer, connection: str) -> None:
    """Whether the connection would go on or end after the answer: the time for reading it is the same."""
    server = start_server({"server.keep_alive_timeout": "1s"})

    async def scenario() -> None:
        async with JSONClient.connect(server.port) as talker:
            for _ in range(100):
                await talker.publish("heavy", "x" * 50_000)
        body = b'{"channel":"heavy","limit":100}'
        head = (
            f"POST /api/history HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        async with (
            undisturbed_traffic(server),
            open_peers(5, lambda: RawPeer.connect_tcp(server.port, receive_buffer=SMALL_BUFFER)) as peers,
        ):
            for peer in peers:
                await peer.send(head.encode(), body)
            await wait_until(lambda: len(full_queues(server)) == 5, "all wait")
            assert max(send_queues(server.port), default=0) <= KERNEL_MAX
            await gone(server, within_s=4)
            assert await count_limit_hits(server, "server.keep_alive_timeout") == 5
            await all_are_reset(peers)

    run_scenario(scenario())
