"""SIGTERM: the node leaves politely, within its time, and whoever was connected knows to come back."""

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
from tests.acceptance.raw_peer import RawPeer, connect_and_subscribe, encode_upgrade_request
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import http_request
from tests.kernel import send_queues

CROWD = 1000
ROOM = "bare:crowd"
SLOT_S = 0.1


@asynccontextmanager
async def crowd(server: ServerProcess, size: int) -> AsyncIterator[list[JSONClient]]:
    """That many clients, all in the room."""
    async with AsyncExitStack() as stack:
        clients: list[JSONClient] = []
        while len(clients) < size:
            arriving = [JSONClient.connect(server.port, channels=[ROOM]) for _ in range(min(20, size - len(clients)))]
            clients += await asyncio.gather(*map(stack.enter_async_context, arriving))
        yield clients


async def exit_code(server: ServerProcess, deadline_s: float) -> int:
    """Of a process that is ending."""
    return await asyncio.to_thread(server.wait_exit, deadline_s)


async def phase(server: ServerProcess, name: str) -> None:
    """Returns once the drain has got there."""
    await asyncio.to_thread(server.wait_log_line, "drain", 20, phase=name)


async def readiness(server: ServerProcess) -> tuple[int, str]:
    status, body = await http_request(server, "/health/ready")
    return status, json.loads(body)["status"]


@pytest.mark.timeout(120)
def test_a_thousand_clients_are_drained(start_server: StartServer) -> None:
    """Readiness goes red first, while everything works; then all are told 3001, spread over the window; exit 0."""
    server = start_server({"server.drain_delay": "3s", "server.drain_window": "3s", "server.shutdown_timeout": "20s"})

    async def scenario() -> None:
        async with crowd(server, CROWD) as clients:
            assert await readiness(server) == (200, "ok")
            server.send_signal(signal.SIGTERM)
            await phase(server, "unready")
            started_s = time.monotonic()
            assert await readiness(server) == (503, "draining")
            assert (await http_request(server, "/health/live"))[0] == 200
            await clients[0].publish(ROOM, "still here")
            await wait_until(
                lambda: all(client.received_data(ROOM) == ["still here"] for client in clients), "all hear it"
            )
            async with await RawPeer.connect_tcp(server.port) as late:
                await late.send(encode_upgrade_request())
                assert (await late.read_response_head()).status == 503
            assert time.monotonic() - started_s < 3, "all of that was before listening ended; the machine is too slow"
            errors = await asyncio.gather(*(client.closed for client in clients))
            assert await exit_code(server, 20) == 0
            lasted_s = time.monotonic() - started_s
        assert {(error.code, error.reason) for error in errors} == {(3001, "shutdown")}
        moments = [client.closed_at_s - started_s for client in clients]
        assert len({int(moment / SLOT_S) for moment in moments}) >= 10
        assert 2.9 < min(moments) < max(moments) < 3 + 3 + 2
        assert lasted_s < 3 + 3 + 4
        phases = [line["phase"] for line in server.log_lines("drain")]
        assert list(dict.fromkeys(phases)) == ["unready", "stopped_listening", "closing", "closed", "finished"]
        assert server.log_lines("drain")[-1]["remaining"] == 0
        assert {line["code"] for line in server.log_lines("session_ended")} == {3001}

    run_scenario(scenario(), 90)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_signals_drain(start_server: StartServer, number: signal.Signals) -> None:
    """What a person presses is as polite as what an init system sends; nobody can connect any more afterwards."""
    server = start_server({"server.drain_window": "300ms"})

    async def scenario() -> None:
        async with crowd(server, 20) as clients:
            server.send_signal(number)
            assert {(await client.closed).code for client in clients} == {3001}
            with pytest.raises(ConnectionRefusedError):
                await RawPeer.connect_tcp(server.port)
            assert await exit_code(server, 10) == 0

    run_scenario(scenario())


def test_an_empty_server_ends_at_once(start_server: StartServer) -> None:
    """There is nothing to wait for, whatever the window is."""
    server = start_server({"server.drain_window": "20s"})
    started_s = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started_s < 5


def test_a_second_signal_hurries(start_server: StartServer) -> None:
    """Every wait that is left is skipped; the clients are told all the same."""
    server = start_server({"server.drain_delay": "15s", "server.drain_window": "15s"})

    async def scenario() -> None:
        async with crowd(server, 100) as clients:
            server.send_signal(signal.SIGTERM)
            await phase(server, "unready")
            started_s = time.monotonic()
            server.send_signal(signal.SIGTERM)
            assert {(await client.closed).code for client in clients} == {3001}
            assert await exit_code(server, 10) == 0
            assert time.monotonic() - started_s < 5

    run_scenario(scenario())


def test_those_who_do_not_let_go_are_cut_at_the_limit(start_server: StartServer) -> None:
    """A client that never reads and a request that never ends hold the node no longer than shutdown_timeout."""
    server = start_server(
        {
            "server.drain_delay": "1s",
            "server.drain_window": "1s",
            "server.shutdown_timeout": "4s",
            "websocket.close_timeout": "30s",
            "server.keep_alive_timeout": "60s",
        }
    )

    async def scenario() -> None:
        async with (
            await RawPeer.connect_websocket(server.port, receive_buffer=4096) as stuck,
            await RawPeer.connect_tcp(server.port) as endless,
            await RawPeer.connect_tcp(server.port),
            crowd(server, 20) as clients,
        ):
            await connect_and_subscribe(stuck, ROOM)
            await endless.send(b"POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
            trickling = asyncio.create_task(trickle(endless))
            server.send_signal(signal.SIGTERM)
            await phase(server, "unready")
            started_s = time.monotonic()
            assert {(await client.closed).code for client in clients} == {3001}
            assert await exit_code(server, 20) == 0
            assert 3.5 < time.monotonic() - started_s < 4 + 1.5
            trickling.cancel()

    run_scenario(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what their kernels hold")
def test_nothing_is_left_in_the_kernel_for_those_who_never_read(start_server: StartServer) -> None:
    """What a WebSocket, a stream and an HTTP answer still had to send when the time was over ends with the process."""
    server = start_server(
        {"server.drain_window": "500ms", "server.shutdown_timeout": "2s", "websocket.close_timeout": "30s"}
    )

    async def scenario() -> None:
        history = b'{"channel":"room","limit":100}'
        opening = b'{"subs":{"room":{}}}'
        async with (
            await RawPeer.connect_websocket(server.port, receive_buffer=4096) as websocket,
            await RawPeer.connect_tcp(server.port, receive_buffer=4096) as stream,
            await RawPeer.connect_tcp(server.port, receive_buffer=4096) as caller,
            JSONClient.connect(server.port) as talker,
        ):
            await connect_and_subscribe(websocket, "room")
            await stream.send(post("/connection/uni_http_stream", opening))
            await wait_until(lambda: len(server.log_lines("session_connected")) == 3, "all are there")
            for _ in range(16):
                await talker.publish("room", "x" * 50_000)
            await caller.send(post("/api/history", history))
            await wait_until(lambda: len([size for size in send_queues(server.port) if size > 50_000]) == 3, "all wait")
            server.send_signal(signal.SIGTERM)
            assert await exit_code(server, 10) == 0
            await wait_until(
                lambda: max(send_queues(server.port), default=0) < 5000, "the kernel has dropped the rest", 2
            )

    run_scenario(scenario())


def post(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def trickle(peer: RawPeer) -> None:
    try:
        while True:
            await peer.send(b" ")
            await asyncio.sleep(0.2)
    except OSError:
        return  # the server has gone


def test_a_request_in_flight_is_finished(start_server: StartServer) -> None:
    """A backend that is in the middle of a call when SIGTERM comes gets its answer."""
    server = start_server({"server.drain_window": "300ms", "server.shutdown_timeout": "15s"})
    body = json.dumps({"channel": "room", "data": {"text": "last"}}).encode()

    async def scenario() -> None:
        async with await RawPeer.connect_tcp(server.port) as backend:
            head = f"POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            await backend.send(head.encode(), body[:10])
            assert await readiness(server) == (200, "ok")  # so the server has read the beginning
            server.send_signal(signal.SIGTERM)
            await phase(server, "finished")
            await backend.send(body[10:])
            assert (await backend.read_response_head()).status == 200
            assert b'"offset":1' in await backend.read_to_end()
            assert await exit_code(server, 10) == 0

    run_scenario(scenario())


def test_slow_and_stale_connections_do_not_hold_it_up(start_server: StartServer) -> None:
    """Half a handshake, an idle keep-alive and a client that has not said who it is are no reason to wait."""
    server = start_server(
        {"server.drain_window": "300ms", "server.handshake_timeout": "60s", "client.stale_close_delay": "60s"}
    )

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
            assert await exit_code(server, 10) == 0
            assert time.monotonic() - started_s < 5

    run_scenario(scenario())
