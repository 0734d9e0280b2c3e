"""Connections that never become one, or become too many."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from beaconfire.auth.issue import connection_token
from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import RawPeer, encode_upgrade_request, open_peers
from tests.acceptance.server_process import PERMISSIVE_CONFIG, REFERENCE_CONFIG, SECRET, ServerProcess
from tests.acceptance.server_state import assert_healthy, count_limit_hits, http_request, megabytes, read_metrics
from tests.conformance.websocket.test_tls import make_certificate

TIMEOUT_S = 1.0
SLACK_S = 2.0


@pytest.fixture(scope="module")
def short_timeout_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    overrides = {"server.handshake_timeout": f"{TIMEOUT_S}s", "server.header_max_size": "8KiB"}
    with ServerProcess(tmp_path_factory.mktemp("short_timeout_server"), PERMISSIVE_CONFIG, overrides) as server:
        yield server
        assert_healthy(server)


async def trickle(peer: RawPeer) -> None:
    """Sends an upgrade request byte by byte, slowly enough to last for minutes."""
    try:
        for byte in encode_upgrade_request():
            await peer.send(bytes([byte]))
            await asyncio.sleep(0.3)
    except OSError:
        return  # cut, as it should be


def test_slow_handshakes_are_cut(short_timeout_server: ServerProcess) -> None:
    """200 connections without a word and 200 that spell their request: all gone within the timeout."""

    async def scenario() -> None:
        hits_before = await count_limit_hits(short_timeout_server, "server.handshake_timeout")
        before = short_timeout_server.resident_bytes()
        started_s = time.monotonic()
        async with (
            undisturbed_traffic(short_timeout_server),
            open_peers(400, lambda: RawPeer.connect_tcp(short_timeout_server.port)) as peers,
        ):
            assert short_timeout_server.resident_bytes() - before < megabytes(12)
            tricklers = [asyncio.create_task(trickle(peer)) for peer in peers[:200]]
            await asyncio.gather(*(peer.wait_closed() for peer in peers))
            assert TIMEOUT_S - 0.2 < time.monotonic() - started_s < TIMEOUT_S + SLACK_S
            for trickler in tricklers:
                trickler.cancel()
            await asyncio.gather(*tricklers, return_exceptions=True)
        assert await count_limit_hits(short_timeout_server, "server.handshake_timeout") == hits_before + 400

    run_scenario(scenario())


def test_slow_tls_handshakes_are_cut(tmp_path: Path) -> None:
    """Before a byte of HTTP there is TLS, with the same deadline: for silence, and for half a client hello."""
    certificate = make_certificate(tmp_path)
    tls = {"server.tls_cert": str(certificate), "server.tls_key": str(certificate)}
    overrides = tls | {"server.handshake_timeout": f"{TIMEOUT_S}s"}

    async def scenario(server: ServerProcess) -> None:
        started_s = time.monotonic()
        async with open_peers(40, lambda: RawPeer.connect_tcp(server.port)) as peers:
            for peer in peers[:20]:
                await peer.send(b"\x16\x03\x01\x02\x00\x01\x00")
            await asyncio.gather(*(peer.wait_closed() for peer in peers))
        assert time.monotonic() - started_s < TIMEOUT_S + SLACK_S

    with ServerProcess(tmp_path, PERMISSIVE_CONFIG, overrides) as server:
        run_scenario(scenario(server))
        assert_healthy(server)


BOMBS = {
    "one header": [("X-Bomb", "x" * 1_000_000)],
    "many headers": [(f"X-Bomb-{number}", "x" * 50) for number in range(2000)],
    "long path": [],
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_header_bomb_is_431(short_timeout_server: ServerProcess, bomb: str) -> None:
    """Beyond header_max_size: 431 and the end, before the rest is taken."""

    async def scenario() -> None:
        hits_before = await count_limit_hits(short_timeout_server, "server.header_max_size")
        before = short_timeout_server.resident_bytes()
        async with (
            undisturbed_traffic(short_timeout_server),
            await RawPeer.connect_tcp(short_timeout_server.port) as peer,
        ):
            path = "/connection/websocket?" + ("x" * 100_000 if bomb == "long path" else "")
            try:
                await peer.send(encode_upgrade_request(path, BOMBS[bomb]))
            except OSError:
                pass  # cut while sending; the answer came before
            else:
                assert (await peer.read_response_head()).status == 431
            await peer.wait_closed()
        assert await count_limit_hits(short_timeout_server, "server.header_max_size") == hits_before + 1
        assert short_timeout_server.resident_bytes() - before < megabytes(3)

    run_scenario(scenario())


def test_endless_headers_are_431(short_timeout_server: ServerProcess) -> None:
    """A head that never ends does not get to the timeout."""

    async def scenario() -> None:
        hits_before = await count_limit_hits(short_timeout_server, "server.header_max_size")
        async with (
            undisturbed_traffic(short_timeout_server),
            await RawPeer.connect_tcp(short_timeout_server.port) as peer,
        ):
            await peer.send(encode_upgrade_request()[:-2])
            for _ in range(9):
                await peer.send(b"X-More: " + b"x" * 1024 + b"\r\n")
            assert (await peer.read_response_head()).status == 431
        assert await count_limit_hits(short_timeout_server, "server.header_max_size") == hits_before + 1

    run_scenario(scenario())


NO_UPGRADES = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello", 400),
    "garbage": (b"\x00" * 100 + b"\r\n\r\n", 400),
    "no key": (b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 426),
    "nowhere": (encode_upgrade_request("/nowhere"), 404),
    "by POST": (encode_upgrade_request(headers=[("Connection", "close")]).replace(b"GET", b"POST", 1), 405),
    "over HTTP/1.0": (encode_upgrade_request().replace(b"HTTP/1.1", b"HTTP/1.0", 1), 400),
    "by CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), 400),
    "with a body": (encode_upgrade_request(headers=[("Content-Length", "3")]) + b"abc", 400),
}


@pytest.mark.parametrize("kind", NO_UPGRADES)
def test_what_is_no_upgrade_is_answered_with_http(short_timeout_server: ServerProcess, kind: str) -> None:
    """The right status, and the connection is closed."""
    sent, status = NO_UPGRADES[kind]

    async def scenario() -> None:
        async with (
            undisturbed_traffic(short_timeout_server),
            await RawPeer.connect_tcp(short_timeout_server.port) as peer,
        ):
            await peer.send(sent)
            assert (await peer.read_response_head()).status == status
            await peer.wait_closed()

    run_scenario(scenario())


async def upgrade_status(server: ServerProcess) -> tuple[RawPeer, int]:
    peer = await RawPeer.connect_tcp(server.port)
    await peer.send(encode_upgrade_request())
    return peer, (await peer.read_response_head()).status


def test_beyond_the_connection_limit_is_503(start_server: StartServer) -> None:
    """Those inside stay, HTTP is answered as before, and whoever leaves makes room."""
    server = start_server({"client.connection_limit": "6"})

    async def scenario() -> None:
        async with undisturbed_traffic(server):
            answers = [await upgrade_status(server) for _ in range(20)]
            assert [status for _, status in answers] == [101] * 4 + [503] * 16
            assert (await read_metrics(server))["beaconfire_connections"] == 6
            assert await count_limit_hits(server, "client.connection_limit") == 16
            assert (await read_metrics(server))['beaconfire_handshakes_refused_total{reason="limit"}'] == 16
            answers[0][0].close()
            await wait_until(lambda: has_room(server), "who leaves makes room")
            for peer, _ in answers:
                peer.close()

    run_scenario(scenario())


async def has_room(server: ServerProcess) -> bool:
    peer, status = await upgrade_status(server)
    peer.close()
    return status == 101


def test_beyond_the_connection_rate_limit_is_503(start_server: StartServer) -> None:
    """In one second no more than the limit come in; later ones do."""
    server = start_server({"client.connection_rate_limit": "5"})

    async def scenario() -> None:
        async with undisturbed_traffic(server):
            started_s = time.monotonic()
            answers = [await upgrade_status(server) for _ in range(40)]
            seconds = 1 + int(time.monotonic() - started_s + 1)
            accepted = sum(status == 101 for _, status in answers)
            assert accepted <= 5 * seconds
            assert {status for _, status in answers} == {101, 503}
            assert await count_limit_hits(server, "client.connection_rate_limit") == 40 - accepted
            assert (await read_metrics(server))['beaconfire_handshakes_refused_total{reason="rate"}'] == 40 - accepted
            await wait_until(lambda: has_room(server), "the next second lets in again")
            for peer, _ in answers:
                peer.close()

    run_scenario(scenario())


def test_beyond_the_user_connection_limit_is_3504(start_server: StartServer) -> None:
    """One user's third connection is refused for good; other users come in, and so does the user after leaving one."""
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
            await wait_until(lambda: may_connect(server, ann), "a place is free again")

    run_scenario(scenario())


async def may_connect(server: ServerProcess, token: str) -> bool:
    async with await RawPeer.connect_websocket(server.port) as peer:
        await peer.send_json({"id": 1, "connect": {"token": token}})
        frame = await peer.read_frame()
        return frame.opcode != 8


def test_without_file_descriptors_those_inside_are_served(start_server: StartServer) -> None:
    """300 connections to a process that may open 100 files: the neighbours go on, and afterwards all is well."""
    server = start_server({"server.handshake_timeout": "1s"})
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (100, 100))

    async def scenario() -> None:
        async with undisturbed_traffic(server):
            async with open_peers(300, lambda: RawPeer.connect_tcp(server.port)):
                await asyncio.sleep(1)
            await wait_until(lambda: has_room(server), "there is room again")
        assert (await http_request(server, "/health/ready"))[0] == 200

    run_scenario(scenario())
