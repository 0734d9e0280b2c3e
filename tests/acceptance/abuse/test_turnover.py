"""Ten thousand clients that come and go, politely or not, and leave nothing behind."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter

from tests.acceptance.abuse.conftest import Serve
from tests.acceptance.abuse.surroundings import enter, figures, http, megabytes, undisturbed, wait_figure
from tests.acceptance.harness import ServerProcess
from tests.acceptance.peer import CLOSE, TEXT, Client, Peer, frame, run, until, upgrade_request

CROWD = "watched:crowd"
AT_A_TIME = 50


async def polite(server: ServerProcess) -> None:
    async with await Peer.open(server.port) as peer:
        await enter(peer, CROWD)
        await peer.send(frame(CLOSE, struct.pack("!H", 1000)))
        await peer.verdict()


async def abrupt(server: ServerProcess) -> None:
    peer = await Peer.open(server.port)
    await enter(peer, CROWD)
    peer.reset()


async def half_shaken(server: ServerProcess) -> None:
    peer = await Peer.dial(server.port)
    await peer.send(upgrade_request()[:60])
    peer.reset()


async def silent(server: ServerProcess) -> None:
    (await Peer.open(server.port)).close()


async def hasty(server: ServerProcess) -> None:
    """Gone before the answer."""
    peer = await Peer.open(server.port)
    await peer.send(frame(TEXT, b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"bare:hasty"}}'))
    peer.reset()


SHAPES = (polite, abrupt, half_shaken, silent, hasty)


async def visit(server: ServerProcess, count: int) -> None:
    """That many connections, of all shapes in turn, a few dozen at a time."""
    numbers = iter(range(count))

    async def visit_some() -> None:
        for number in numbers:
            await SHAPES[number % len(SHAPES)](server)

    await asyncio.gather(*(visit_some() for _ in range(AT_A_TIME)))


def announced(watcher: Client, kind: str) -> Counter[str]:
    return Counter(push[kind]["info"]["client"] for push in watcher.pushes if kind in push)


def test_ten_thousand_come_and_go(serve: Serve) -> None:
    """Memory, connections, subscriptions and presence are as before; a watcher saw everyone come and go, once each."""
    server = serve(
        {
            "client.ping_interval": "2s",
            "client.pong_timeout": "1s",
            "client.stale_close_delay": "2s",
            "server.handshake_timeout": "2s",
            "client.presence_update_interval": "2s",
        }
    )

    async def scenario() -> None:
        await visit(server, 2000)  # what the first ones need, the allocator keeps
        await wait_figure(server, "beaconfire_connections", 0)
        before = server.resident_bytes()
        async with undisturbed(server), Client.connect(server.port, channels=[CROWD]) as watcher:
            await visit(server, 10_000)
            await until(lambda: len(announced(watcher, "leave")) == 4000, "the watcher saw everyone go")
            joins, leaves = announced(watcher, "join"), announced(watcher, "leave")
            del joins[watcher.identifier]
            assert joins == leaves
            assert set(joins.values()) == {1}
            reply = await watcher.ask(presence={"channel": CROWD})
            assert list(reply["presence"]["presence"]) == [watcher.identifier]
        await wait_figure(server, "beaconfire_connections", 0)
        figure = await figures(server)
        assert figure["beaconfire_subscriptions"] == figure["beaconfire_channels"] == figure["beaconfire_sessions"] == 0
        assert figure["beaconfire_queue_bytes"] == 0
        await until(lambda: server.resident_bytes() - before < megabytes(3), "memory is back")
        status, answer = await http(server, "/api/presence_stats", b'{"channel":"watched:crowd"}')
        assert (status, answer) == (200, b'{"result":{"num_clients":0,"num_users":0}}')

    run(scenario())
