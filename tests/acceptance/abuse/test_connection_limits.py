"""Limits for the number and the rate of connections, in total and per user, and for file descriptors."""

from __future__ import annotations

import asyncio
import resource
import time

from beaconfire.auth.issue import connection_token
from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import CLOSE, RawPeer, encode_upgrade_request, open_peers
from tests.acceptance.server_process import REFERENCE_CONFIG, SECRET, ServerProcess
from tests.acceptance.server_state import count_limit_hits, http_request, read_metrics


async def try_upgrade(server: ServerProcess) -> tuple[RawPeer, int]:
    """Requests a WebSocket. Returns the open connection and the HTTP status, 0 if the server closed without one."""
    peer = await RawPeer.connect_tcp(server.port)
    try:
        await peer.send(encode_upgrade_request())
        return peer, (await peer.read_response_head()).status
    except (EOFError, ConnectionError):
        return peer, 0


def test_handshake_beyond_connection_limit_is_refused_with_503(start_server: StartServer) -> None:
    """Open connections stay, HTTP requests are answered, and a closed connection makes room for another one."""
    server = start_server({"client.connection_limit": "6"})

    async def scenario() -> None:
        async with undisturbed_traffic(server):
            attempts = [await try_upgrade(server) for _ in range(20)]
            assert [status for _, status in attempts] == [101] * 4 + [503] * 16
            assert (await read_metrics(server))["beaconfire_connections"] == 6
            assert await count_limit_hits(server, "client.connection_limit") == 16
            assert (await read_metrics(server))['beaconfire_handshakes_refused_total{reason="limit"}'] == 16
            attempts[0][0].close()
            await wait_until(lambda: accepts_websocket(server), "a connection is accepted again")
            for peer, _ in attempts:
                peer.close()

    run_scenario(scenario())


async def accepts_websocket(server: ServerProcess) -> bool:
    peer, status = await try_upgrade(server)
    peer.close()
    return status == 101


def test_handshake_beyond_connection_rate_limit_is_refused_with_503(start_server: StartServer) -> None:
    """The server accepts at most the limit per second, and accepts connections again in the next second."""
    server = start_server({"client.connection_rate_limit": "5"})

    async def scenario() -> None:
        async with undisturbed_traffic(server):
            started_s = time.monotonic()
            attempts = [await try_upgrade(server) for _ in range(40)]
            seconds = 1 + int(time.monotonic() - started_s + 1)
            accepted = sum(status == 101 for _, status in attempts)
            assert accepted <= 5 * seconds
            assert {status for _, status in attempts} == {101, 503}
            assert await count_limit_hits(server, "client.connection_rate_limit") == 40 - accepted
            assert (await read_metrics(server))['beaconfire_handshakes_refused_total{reason="rate"}'] == 40 - accepted
            await wait_until(lambda: accepts_websocket(server), "a connection is accepted again")
            for peer, _ in attempts:
                peer.close()

    run_scenario(scenario())


def test_connection_beyond_user_connection_limit_is_closed_with_3504(start_server: StartServer) -> None:
    """The limit does not affect other users. The user can connect again after closing a connection."""
    server = start_server({"client.user_connection_limit": "2", "client.insecure": "true"}, REFERENCE_CONFIG)
    ann, bob = (connection_token(SECRET, user, now_unix_s=time.time()) for user in ("ann", "bob"))

    async def scenario() -> None:
        async with undisturbed_traffic(server), JSONClient.connect(server.port, ann):
            async with JSONClient.connect(server.port, ann), await RawPeer.connect_websocket(server.port) as third:
                await third.send_json({"id": 1, "connect": {"token": ann}})
                close = await third.read_close_frame()
                assert (close.close_code, close.payload[2:]) == (3504, b"connection limit")
                async with JSONClient.connect(server.port, bob):
                    pass
            assert await count_limit_hits(server, "client.user_connection_limit") == 1
            await wait_until(lambda: can_connect(server, ann), "the user can connect again")

    run_scenario(scenario())


async def can_connect(server: ServerProcess, token: str) -> bool:
    async with await RawPeer.connect_websocket(server.port) as peer:
        await peer.send_json({"id": 1, "connect": {"token": token}})
        frame = await peer.read_frame()
        return frame.opcode != CLOSE


def test_open_connections_are_served_without_free_file_descriptors(start_server: StartServer) -> None:
    """300 peers connect to a process that may open 100 files. Afterwards the server accepts connections again."""
    server = start_server({"server.handshake_timeout": "1s"})
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (100, 100))

    async def scenario() -> None:
        async with undisturbed_traffic(server):
            async with open_peers(300, lambda: RawPeer.connect_tcp(server.port)):
                await asyncio.sleep(1)
            await wait_until(lambda: accepts_websocket(server), "a connection is accepted again")
        assert (await http_request(server, "/health/ready"))[0] == 200

    run_scenario(scenario())
