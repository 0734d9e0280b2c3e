"""Peers that say nothing: no pong, no connect command, no sign that they are gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.acceptance.abuse.conftest import Serve
from tests.acceptance.abuse.surroundings import (
    OPEN_HOUSE,
    ROOM,
    assert_healthy,
    count_descriptors,
    enter,
    hits,
    undisturbed,
    wait_ended,
)
from tests.acceptance.harness import ServerProcess
from tests.acceptance.peer import TEXT, Client, ClosedError, Peer, company, frame, run, until

INTERVAL_S = 1.0
TIMEOUT_S = 0.9
"""Just below the interval, which is the most the settings allow: neighbours on a busy machine must not miss it."""

SLACK_S = 2.0
"""For timers that tick ten times a second, and a busy machine."""


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    overrides = {
        "client.ping_interval": f"{INTERVAL_S}s",
        "client.pong_timeout": f"{TIMEOUT_S}s",
        "client.stale_close_delay": "700ms",
        "websocket.close_timeout": "1s",
    }
    with ServerProcess(tmp_path_factory.mktemp("impatient"), OPEN_HOUSE, overrides) as server:
        yield server
        assert_healthy(server)


class BlackHole:
    """A TCP proxy for one connection that forwards, until it swallows every byte and tells nobody.

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
def test_no_pong_means_no_connection(impatient: ServerProcess, path: str) -> None:
    """3012 within interval and timeout, however much the server writes to the peer; pings are of either kind."""

    async def scenario() -> None:
        hits_before = await hits(impatient, "client.pong_timeout")
        async with undisturbed(impatient), await Peer.open(impatient.port, path) as peer:
            if path == "/ws":
                await peer.say({"type": "join", "room": ROOM})
            else:
                await enter(peer)
            started_s = time.monotonic()
            close = await peer.verdict()  # after many publications that were read and never answered
            lasted_s = time.monotonic() - started_s
        assert (close.code, close.payload[2:]) == (3012, b"no pong")
        assert INTERVAL_S / 2 + TIMEOUT_S - 0.3 < lasted_s < INTERVAL_S + TIMEOUT_S + SLACK_S
        assert await hits(impatient, "client.pong_timeout") == hits_before + 1

    run(scenario())


def test_a_half_open_connection_is_found_and_forgotten(impatient: ServerProcess) -> None:
    """A client whose network died is out of the room within interval and timeout, and its socket is freed."""

    async def scenario() -> None:
        room = "watched:tunnel"
        hole = BlackHole(impatient.port)
        async with (
            undisturbed(impatient),
            Client.connect(impatient.port, channels=[room]) as watcher,
            hole as port,
        ):
            descriptors = count_descriptors(impatient)
            async with Client.connect(port, channels=[room]) as traveller:
                await until(lambda: others(watcher, "join") == [traveller.identifier], "the watcher saw it come")
                hole.swallow()
                started_s = time.monotonic()
                await until(lambda: others(watcher, "leave") == [traveller.identifier], "the watcher saw it go")
                assert time.monotonic() - started_s < INTERVAL_S + TIMEOUT_S + SLACK_S
                await wait_ended(impatient, traveller.identifier, 3012)
                await until(lambda: count_descriptors(impatient) == descriptors, "its socket is freed")

    run(scenario())


def others(watcher: Client, kind: str) -> list[str]:
    """Clients other than the watcher in the join or leave pushes it got."""
    clients = [push[kind]["info"]["client"] for push in watcher.pushes if kind in push]
    return [client for client in clients if client != watcher.identifier]


def test_a_client_that_answers_pings_stays(impatient: ServerProcess) -> None:
    """Three whole intervals with nothing said but pongs."""

    async def scenario() -> None:
        async with Client.connect(impatient.port) as calm:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(calm.closed), 3 * INTERVAL_S + TIMEOUT_S)
            await calm.publish(ROOM, "still here")

    run(scenario())


def test_an_unasked_pong_breaks_the_protocol(open_house: ServerProcess) -> None:
    """3501: no ping is out in the first half of the interval."""

    async def scenario() -> None:
        async with undisturbed(open_house), await Peer.open(open_house.port) as peer:
            await peer.say({"id": 1, "connect": {}})
            await peer.reply(1)
            await peer.say({})
            assert (await peer.verdict()).code == 3501

    run(scenario())


def test_a_connection_without_connect_is_stale(serve: Serve) -> None:
    """200 upgraded and silent connections are each told 3502, and cost the neighbours nothing."""
    server = serve({"client.stale_close_delay": "700ms"})

    async def scenario() -> None:
        async with undisturbed(server), company(200, lambda: Peer.open(server.port)) as peers:
            verdicts = await asyncio.gather(*(peer.verdict() for peer in peers))
        assert {(close.code, close.payload[2:]) for close in verdicts} == {(3502, b"stale")}
        assert await hits(server, "client.stale_close_delay") == 200

    run(scenario())


def test_a_client_that_waits_for_a_refused_connect_is_told(impatient: ServerProcess) -> None:
    """Even a client that reads and answers everything is stale without identity."""

    async def scenario() -> None:
        client = Client(await Peer.open(impatient.port))
        try:
            error: ClosedError = await asyncio.wait_for(asyncio.shield(client.closed), 10)
            assert error.code == 3502
        finally:
            await client.leave()

    run(scenario())


def test_a_peer_that_holds_on_after_the_close_frame_is_cut(impatient: ServerProcess) -> None:
    """Whoever neither answers the close frame nor closes the connection costs a socket for close_timeout, no longer."""

    async def scenario() -> None:
        descriptors = count_descriptors(impatient)
        hits_before = await hits(impatient, "websocket.close_timeout")
        async with company(50, lambda: Peer.open(impatient.port)) as peers:
            for number, peer in enumerate(peers):
                await peer.send(frame(TEXT, b"garbage") if number % 2 else frame(TEXT, b"\xff"))
            await until(lambda: count_descriptors(impatient) <= descriptors, "all sockets are freed")
        assert await hits(impatient, "websocket.close_timeout") == hits_before + 50

    run(scenario())
