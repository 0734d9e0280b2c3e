"""Silent peers: no pong, no connect command, no answer to a close frame, or a dead network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.acceptance.background_traffic import CHANNEL, undisturbed_traffic
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import TEXT, ClosedError, RawPeer, connect_and_subscribe, encode_frame, open_peers
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import count_descriptors, count_limit_hits, healthy_server, wait_session_end

INTERVAL_S = 1.0
TIMEOUT_S = 0.9
"""Nearly the interval, which is the maximum: the clients of the background traffic must answer in time."""

SLACK_S = 2.0
"""Tolerance for timers that run ten times per second, and for busy machines."""


@pytest.fixture(scope="module")
def short_ping_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a short ping interval and short timeouts."""
    overrides = {
        "client.ping_interval": f"{INTERVAL_S}s",
        "client.pong_timeout": f"{TIMEOUT_S}s",
        "client.stale_close_delay": "700ms",
        "websocket.close_timeout": "1s",
    }
    with healthy_server(tmp_path_factory.mktemp("short_ping_server"), overrides) as process:
        yield process


class DroppingProxy:
    """A TCP proxy that forwards bytes until `drop_all` is called, and then drops all bytes in both directions.

    The server receives neither FIN nor RST, as when a router fails or a phone loses its network.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_dropping = False
        self._writers: list[asyncio.StreamWriter] = []
        self._forwarding: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *failure: object) -> None:
        self._server.close()
        for task in self._forwarding:
            task.cancel()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*self._forwarding, return_exceptions=True)

    def drop_all(self) -> None:
        self._is_dropping = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, server_writer]
        self._forwarding += [
            asyncio.create_task(self._forward(reader, server_writer)),
            asyncio.create_task(self._forward(server_reader, writer)),
        ]

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self._is_dropping:
                writer.write(data)


@pytest.mark.parametrize("path", ["/connection/websocket", "/connection/websocket?cf_ws_frame_ping_pong=true", "/ws"])
def test_client_that_sends_no_pong_is_closed_with_3012(short_ping_server: ServerProcess, path: str) -> None:
    """The server closes within ping interval plus pong timeout, for each kind of ping, also while it publishes."""

    async def scenario() -> None:
        hits_before = await count_limit_hits(short_ping_server, "client.pong_timeout")
        async with (
            undisturbed_traffic(short_ping_server),
            await RawPeer.connect_websocket(short_ping_server.port, path) as peer,
        ):
            if path == "/ws":
                await peer.send_json({"type": "join", "room": CHANNEL})
            else:
                await connect_and_subscribe(peer, CHANNEL)
            started_s = time.monotonic()
            close = await peer.read_close_frame()  # after many publications
            lasted_s = time.monotonic() - started_s
        assert (close.close_code, close.payload[2:]) == (3012, b"no pong")
        assert INTERVAL_S / 2 + TIMEOUT_S - 0.3 < lasted_s < INTERVAL_S + TIMEOUT_S + SLACK_S
        assert await count_limit_hits(short_ping_server, "client.pong_timeout") == hits_before + 1

    run_scenario(scenario())


def test_half_open_connection_is_closed_and_its_socket_is_freed(short_ping_server: ServerProcess) -> None:
    """A client with a dead network leaves its channels within ping interval plus pong timeout."""

    async def scenario() -> None:
        channel = "watched:tunnel"
        proxy = DroppingProxy(short_ping_server.port)
        async with (
            undisturbed_traffic(short_ping_server),
            JSONClient.connect(short_ping_server.port, channels=[channel]) as watcher,
            proxy as port,
        ):
            descriptors = count_descriptors(short_ping_server)
            async with JSONClient.connect(port, channels=[channel]) as client:
                await wait_until(
                    lambda: received_other_clients(watcher, "join") == [client.client_id], "the watcher has the join"
                )
                proxy.drop_all()
                started_s = time.monotonic()
                await wait_until(
                    lambda: received_other_clients(watcher, "leave") == [client.client_id], "the watcher has the leave"
                )
                assert time.monotonic() - started_s < INTERVAL_S + TIMEOUT_S + SLACK_S
                await wait_session_end(short_ping_server, client.client_id, 3012)
                await wait_until(lambda: count_descriptors(short_ping_server) == descriptors, "the socket is closed")

    run_scenario(scenario())


def received_other_clients(watcher: JSONClient, kind: str) -> list[str]:
    """The client ids in the watcher's join or leave pushes, without its own."""
    return [client_id for client_id in watcher.received_clients(kind) if client_id != watcher.client_id]


def test_client_that_answers_pings_stays_connected(short_ping_server: ServerProcess) -> None:
    """A client that only sends pongs stays connected for three ping intervals."""

    async def scenario() -> None:
        async with JSONClient.connect(short_ping_server.port) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(client.closed), 3 * INTERVAL_S + TIMEOUT_S)
            await client.publish(CHANNEL, "still here")

    run_scenario(scenario())


def test_pong_without_ping_is_closed_with_3501(permissive_server: ServerProcess) -> None:
    """The server sends no ping in the first half of the ping interval, so a pong then is invalid."""

    async def scenario() -> None:
        async with (
            undisturbed_traffic(permissive_server),
            await RawPeer.connect_websocket(permissive_server.port) as peer,
        ):
            await peer.send_json({"id": 1, "connect": {}})
            await peer.read_reply(1)
            await peer.send_json({})
            assert (await peer.read_close_frame()).close_code == 3501

    run_scenario(scenario())


def test_connection_without_connect_command_is_closed_with_3502(start_server: StartServer) -> None:
    """200 connections send nothing after the upgrade and are closed, and other clients are undisturbed."""
    server = start_server({"client.stale_close_delay": "700ms"})

    async def scenario() -> None:
        async with (
            undisturbed_traffic(server),
            open_peers(200, lambda: RawPeer.connect_websocket(server.port)) as peers,
        ):
            close_frames = await asyncio.gather(*(peer.read_close_frame() for peer in peers))
        assert {(close.close_code, close.payload[2:]) for close in close_frames} == {(3502, b"stale")}
        assert await count_limit_hits(server, "client.stale_close_delay") == 200

    run_scenario(scenario())


def test_client_that_only_answers_pings_is_closed_with_3502(short_ping_server: ServerProcess) -> None:
    """A client that reads and answers pings is stale without a connect command."""

    async def scenario() -> None:
        client = JSONClient(await RawPeer.connect_websocket(short_ping_server.port))
        try:
            error: ClosedError = await asyncio.wait_for(asyncio.shield(client.closed), 10)
            assert error.code == 3502
        finally:
            await client.disconnect()

    run_scenario(scenario())


def test_peer_that_does_not_answer_the_close_frame_is_disconnected(short_ping_server: ServerProcess) -> None:
    """The server frees the socket after `websocket.close_timeout`."""

    async def scenario() -> None:
        descriptors = count_descriptors(short_ping_server)
        hits_before = await count_limit_hits(short_ping_server, "websocket.close_timeout")
        async with open_peers(50, lambda: RawPeer.connect_websocket(short_ping_server.port)) as peers:
            for number, peer in enumerate(peers):
                await peer.send(encode_frame(TEXT, b"garbage") if number % 2 else encode_frame(TEXT, b"\xff"))
            await wait_until(lambda: count_descriptors(short_ping_server) <= descriptors, "all sockets are closed")
        assert await count_limit_hits(short_ping_server, "websocket.close_timeout") == hits_before + 50

    run_scenario(scenario())
