"""Peers that say nothing: no pong, no connect command, no sign that they are gone."""

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
from tests.acceptance.server_process import PERMISSIVE_CONFIG, ServerProcess
from tests.acceptance.server_state import assert_healthy, count_descriptors, count_limit_hits, wait_session_end

INTERVAL_S = 1.0
TIMEOUT_S = 0.9
"""Just below the interval, which is the most the settings allow: neighbours on a busy machine must not miss it."""

SLACK_S = 2.0
"""For timers that tick ten times a second, and a busy machine."""


@pytest.fixture(scope="module")
def short_ping_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    overrides = {
        "client.ping_interval": f"{INTERVAL_S}s",
        "client.pong_timeout": f"{TIMEOUT_S}s",
        "client.stale_close_delay": "700ms",
        "websocket.close_timeout": "1s",
    }
    with ServerProcess(tmp_path_factory.mktemp("short_ping_server"), PERMISSIVE_CONFIG, overrides) as server:
        yield server
        assert_healthy(server)


class BlackHole:
    """A TCP proxy for one connection that forwards, wait_until it swallows every byte and tells nobody.

    This is what a phone in a tunnel or a dead router looks like from the server: no FIN, no RST, just nothing.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._swallowing = False
        self._writers: list[asyncio.StreamWriter] = []
        self._pumps: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *failure: object) -> None:
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def swallow(self) -> None:
        self._swallowing = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, far_writer]
        self._pumps += [
            asyncio.create_task(self._pump(reader, far_writer)),
            asyncio.create_task(self._pump(far_reader, writer)),
        ]

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self._swallowing:
                writer.write(data)


@pytest.mark.parametrize("path", ["/connection/websocket", "/connection/websocket?cf_ws_frame_ping_pong=true", "/ws"])
def test_no_pong_means_no_connection(short_ping_server: ServerProcess, path: str) -> None:
    """3012 within interval and timeout, however much the server writes to the peer; pings are of either kind."""

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
            close = await peer.read_close_frame()  # after many publications that were read and never answered
            lasted_s = time.monotonic() - started_s
        assert (close.close_code, close.payload[2:]) == (3012, b"no pong")
        assert INTERVAL_S / 2 + TIMEOUT_S - 0.3 < lasted_s < INTERVAL_S + TIMEOUT_S + SLACK_S
        assert await count_limit_hits(short_ping_server, "client.pong_timeout") == hits_before + 1

    run_scenario(scenario())


def test_a_half_open_connection_is_found_and_forgotten(short_ping_server: ServerProcess) -> None:
    """A client whose network died is out of the room within interval and timeout, and its socket is freed."""

    async def scenario() -> None:
        room = "watched:tunnel"
        hole = BlackHole(short_ping_server.port)
        async with (
            undisturbed_traffic(short_ping_server),
            JSONClient.connect(short_ping_server.port, channels=[room]) as watcher,
            hole as port,
        ):
            descriptors = count_descriptors(short_ping_server)
            async with JSONClient.connect(port, channels=[room]) as traveller:
                await wait_until(lambda: others(watcher, "join") == [traveller.client_id], "the watcher saw it come")
                hole.swallow()
                started_s = time.monotonic()
                await wait_until(lambda: others(watcher, "leave") == [traveller.client_id], "the watcher saw it go")
                assert time.monotonic() - started_s < INTERVAL_S + TIMEOUT_S + SLACK_S
                await wait_session_end(short_ping_server, traveller.client_id, 3012)
                await wait_until(lambda: count_descriptors(short_ping_server) == descriptors, "its socket is freed")

    run_scenario(scenario())


def others(watcher: JSONClient, kind: str) -> list[str]:
    """Clients other than the watcher in the join or leave pushes it got."""
    clients = [push[kind]["info"]["client"] for push in watcher.pushes if kind in push]
    return [client for client in clients if client != watcher.client_id]


def test_a_client_that_answers_pings_stays(short_ping_server: ServerProcess) -> None:
    """Three whole intervals with nothing said but pongs."""

    async def scenario() -> None:
        async with JSONClient.connect(short_ping_server.port) as calm:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(calm.closed), 3 * INTERVAL_S + TIMEOUT_S)
            await calm.publish(CHANNEL, "still here")

    run_scenario(scenario())


def test_an_unasked_pong_breaks_the_protocol(permissive_server: ServerProcess) -> None:
    """3501: no ping is out in the first half of the interval."""

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


def test_a_connection_without_connect_is_stale(start_server: StartServer) -> None:
    """200 upgraded and silent connections are each told 3502, and cost the neighbours nothing."""
    server = start_server({"client.stale_close_delay": "700ms"})

    async def scenario() -> None:
        async with (
            undisturbed_traffic(server),
            open_peers(200, lambda: RawPeer.connect_websocket(server.port)) as peers,
        ):
            verdicts = await asyncio.gather(*(peer.read_close_frame() for peer in peers))
        assert {(close.close_code, close.payload[2:]) for close in verdicts} == {(3502, b"stale")}
        assert await count_limit_hits(server, "client.stale_close_delay") == 200

    run_scenario(scenario())


def test_a_client_that_waits_for_a_refused_connect_is_told(short_ping_server: ServerProcess) -> None:
    """Even a client that reads and answers everything is stale without identity."""

    async def scenario() -> None:
        client = JSONClient(await RawPeer.connect_websocket(short_ping_server.port))
        try:
            error: ClosedError = await asyncio.wait_for(asyncio.shield(client.closed), 10)
            assert error.code == 3502
        finally:
            await client.disconnect()

    run_scenario(scenario())


def test_a_peer_that_holds_on_after_the_close_frame_is_cut(short_ping_server: ServerProcess) -> None:
    """Whoever neither answers the close frame nor closes the connection costs a socket for close_timeout, no longer."""

    async def scenario() -> None:
        descriptors = count_descriptors(short_ping_server)
        hits_before = await count_limit_hits(short_ping_server, "websocket.close_timeout")
        async with open_peers(50, lambda: RawPeer.connect_websocket(short_ping_server.port)) as peers:
            for number, peer in enumerate(peers):
                await peer.send(encode_frame(TEXT, b"garbage") if number % 2 else encode_frame(TEXT, b"\xff"))
            await wait_until(lambda: count_descriptors(short_ping_server) <= descriptors, "all sockets are freed")
        assert await count_limit_hits(short_ping_server, "websocket.close_timeout") == hits_before + 50

    run_scenario(scenario())
