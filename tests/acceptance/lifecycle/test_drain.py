"""Drain after SIGTERM or SIGINT: the node disconnects its clients with 3001 and exits within its timeout."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import SMALL_BUFFER, RawPeer, connect_and_subscribe, encode_post, encode_upgrade_request
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import http_request
from tests.kernel import send_queues

CLIENTS = 1000
CHANNEL = "bare:crowd"
SLOT_S = 0.1
"""The length of a slot, for counting how many slots of the drain have disconnects."""


@asynccontextmanager
async def connect_clients(server: ServerProcess, count: int) -> AsyncIterator[list[JSONClient]]:
    """Connects `count` clients, which subscribe to the channel."""
    async with AsyncExitStack() as stack:
        clients: list[JSONClient] = []
        while len(clients) < count:
            contexts = [
                JSONClient.connect(server.port, channels=[CHANNEL]) for _ in range(min(20, count - len(clients)))
            ]
            clients += await asyncio.gather(*map(stack.enter_async_context, contexts))
        yield clients


async def wait_exit_code(server: ServerProcess, deadline_s: float) -> int:
    """Waits until the process exits. Returns the exit code."""
    return await asyncio.to_thread(server.wait_exit, deadline_s)


async def wait_drain_phase(server: ServerProcess, phase: str) -> None:
    """Waits until the drain has reached the phase."""
    await asyncio.to_thread(server.wait_log_line, "drain", 20, phase=phase)


async def readiness(server: ServerProcess) -> tuple[int, str]:
    """The HTTP status and the `status` field of the readiness endpoint."""
    status, body = await http_request(server, "/health/ready")
    return status, json.loads(body)["status"]


@pytest.mark.timeout(120)
def test_clients_are_disconnected_at_the_drain_rate(start_server: StartServer) -> None:
    """Readiness is 503 at once, and the node serves its clients until `server.drain_delay` ends.

    Then all clients get 3001, `server.drain_rate` per second. The exit code is 0.
    """
    server = start_server({"server.drain_delay": "3s", "server.drain_rate": "333", "server.shutdown_timeout": "20s"})

    async def scenario() -> None:
        async with connect_clients(server, CLIENTS) as clients:
            assert await readiness(server) == (200, "ok")
            server.send_signal(signal.SIGTERM)
            await wait_drain_phase(server, "unready")
            started_s = time.monotonic()
            assert await readiness(server) == (503, "draining")
            assert (await http_request(server, "/health/live"))[0] == 200
            await clients[0].publish(CHANNEL, "still here")
            await wait_until(
                lambda: all(client.received_data(CHANNEL) == ["still here"] for client in clients),
                "all clients have the publication",
            )
            async with await RawPeer.connect_tcp(server.port) as new_peer:
                await new_peer.send(encode_upgrade_request())
                assert (await new_peer.read_response_head()).status == 503
            assert time.monotonic() - started_s < 3, (
                "the machine is too slow: the drain delay must not end before these checks"
            )
            errors = await asyncio.gather(*(client.closed for client in clients))
            assert await wait_exit_code(server, 20) == 0
            duration_s = time.monotonic() - started_s
        assert {(error.code, error.reason) for error in errors} == {(3001, "shutdown")}
        closed_at_s = [client.closed_at_s - started_s for client in clients]
        assert len({int(at_s / SLOT_S) for at_s in closed_at_s}) >= 10
        assert 2.9 < min(closed_at_s) < max(closed_at_s) < 3 + 3 + 2
        assert duration_s < 3 + 3 + 4
        phases = [line["phase"] for line in server.log_lines("drain")]
        assert list(dict.fromkeys(phases)) == ["unready", "stopped_listening", "closing", "closed", "finished"]
        assert server.log_lines("drain")[-1]["remaining"] == 0
        assert {line["code"] for line in server.log_lines("session_ended")} == {3001}

    run_scenario(scenario(), 90)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_and_sigint_start_a_drain(start_server: StartServer, number: signal.Signals) -> None:
    """Clients are disconnected with 3001, and new connections are refused."""
    server = start_server({"server.drain_rate": "60"})

    async def scenario() -> None:
        async with connect_clients(server, 20) as clients:
            server.send_signal(number)
            assert {(await client.closed).code for client in clients} == {3001}
            with pytest.raises(ConnectionRefusedError):
                await RawPeer.connect_tcp(server.port)
            assert await wait_exit_code(server, 10) == 0

    run_scenario(scenario())


def test_server_without_clients_exits_at_once(start_server: StartServer) -> None:
    """The drain rate has no effect without clients."""
    server = start_server({"server.drain_rate": "1"})
    started_s = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started_s < 5


def test_second_signal_skips_all_waits(start_server: StartServer) -> None:
    """The clients are still disconnected with 3001."""
    server = start_server({"server.drain_delay": "15s", "server.drain_rate": "1"})

    async def scenario() -> None:
        async with connect_clients(server, 100) as clients:
            server.send_signal(signal.SIGTERM)
            await wait_drain_phase(server, "unready")
            started_s = time.monotonic()
            server.send_signal(signal.SIGTERM)
            assert {(await client.closed).code for client in clients} == {3001}
            assert await wait_exit_code(server, 10) == 0
            assert time.monotonic() - started_s < 5

    run_scenario(scenario())


def test_open_connections_are_closed_at_the_shutdown_timeout(start_server: StartServer) -> None:
    """The peers are a client that reads nothing, a request that never ends, and a connection without a request."""
    server = start_server(
        {
            "server.drain_delay": "1s",
            "server.drain_rate": "20",
            "server.shutdown_timeout": "4s",
            "websocket.close_timeout": "30s",
            "server.keep_alive_timeout": "60s",
        }
    )

    async def scenario() -> None:
        async with (
            await RawPeer.connect_websocket(server.port, receive_buffer=SMALL_BUFFER) as unread_peer,
            await RawPeer.connect_tcp(server.port) as slow_peer,
            await RawPeer.connect_tcp(server.port),
            connect_clients(server, 20) as clients,
        ):
            await connect_and_subscribe(unread_peer, CHANNEL)
            await slow_peer.send(b"POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
            sending = asyncio.create_task(send_slowly(slow_peer))
            server.send_signal(signal.SIGTERM)
            await wait_drain_phase(server, "unready")
            started_s = time.monotonic()
            assert {(await client.closed).code for client in clients} == {3001}
            assert await wait_exit_code(server, 20) == 0
            assert 3.5 < time.monotonic() - started_s < 4 + 1.5
            sending.cancel()

    run_scenario(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the send queues of the kernel")
def test_kernel_drops_unread_data_at_the_shutdown_timeout(start_server: StartServer) -> None:
    """The unread data of a WebSocket, a stream and an HTTP response is dropped when the process exits."""
    server = start_server({"server.shutdown_timeout": "2s", "websocket.close_timeout": "30s"})

    async def scenario() -> None:
        async with (
            await RawPeer.connect_websocket(server.port, receive_buffer=SMALL_BUFFER) as websocket,
            await RawPeer.connect_tcp(server.port, receive_buffer=SMALL_BUFFER) as stream,
            await RawPeer.connect_tcp(server.port, receive_buffer=SMALL_BUFFER) as http_peer,
            JSONClient.connect(server.port) as publisher,
        ):
            await connect_and_subscribe(websocket, "room")
            await stream.send(encode_post("/connection/uni_http_stream", b'{"subs":{"room":{}}}'))
            await wait_until(lambda: len(server.log_lines("session_connected")) == 3, "all sessions are connected")
            for _ in range(16):
                await publisher.publish("room", "x" * 50_000)
            await http_peer.send(encode_post("/api/history", b'{"channel":"room","limit":100}'))
            await wait_until(
                lambda: len([size for size in send_queues(server.port) if size > 50_000]) == 3,
                "all peers have unread data",
            )
            server.send_signal(signal.SIGTERM)
            assert await wait_exit_code(server, 10) == 0
            await wait_until(
                lambda: max(send_queues(server.port), default=0) < 5000, "the kernel has dropped the unread data", 2
            )

    run_scenario(scenario())


async def send_slowly(peer: RawPeer) -> None:
    """Sends a byte every 0.2 s until the server closes the connection."""
    try:
        while True:
            await peer.send(b" ")
            await asyncio.sleep(0.2)
    except OSError:
        return  # the server closed the connection


def test_request_in_flight_is_answered(start_server: StartServer) -> None:
    """A server API call whose body is incomplete at SIGTERM is answered when the body is complete."""
    server = start_server({"server.shutdown_timeout": "15s"})
    body = json.dumps({"channel": "room", "data": {"text": "last"}}).encode()

    async def scenario() -> None:
        async with await RawPeer.connect_tcp(server.port) as backend:
            head = f"POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            await backend.send(head.encode(), body[:10])
            assert await readiness(server) == (200, "ok")  # once this is answered, the server has read the first part
            server.send_signal(signal.SIGTERM)
            await wait_drain_phase(server, "finished")
            await backend.send(body[10:])
            assert (await backend.read_response_head()).status == 200
            assert b'"offset":1' in await backend.read_to_end()
            assert await wait_exit_code(server, 10) == 0

    run_scenario(scenario())


def test_connections_without_a_session_do_not_delay_the_exit(start_server: StartServer) -> None:
    """The peers are an incomplete handshake, an idle keep-alive connection and a client without a connect command."""
    server = start_server({"server.handshake_timeout": "60s", "client.stale_close_delay": "60s"})

    async def scenario() -> None:
        async with (
            await RawPeer.connect_tcp(server.port) as slow,
            await RawPeer.connect_tcp(server.port) as idle,
            await RawPeer.connect_websocket(server.port) as stale,
        ):
            await slow.send(encode_upgrade_request()[:40])
            await idle.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await idle.read_response_head()).status == 200
            started_s = time.monotonic()
            server.send_signal(signal.SIGTERM)
            assert (await stale.read_close_frame()).close_code == 3001
            stale.close()
            assert await wait_exit_code(server, 10) == 0
            assert time.monotonic() - started_s < 5

    run_scenario(scenario())
