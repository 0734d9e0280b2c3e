"""Ten thousand clients that come and go, politely or not, and leave nothing behind."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter

from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import CLOSE, TEXT, RawPeer, connect_and_subscribe, encode_frame, encode_upgrade_request
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import http_request, megabytes, read_metrics, wait_metric

CROWD = "watched:crowd"
AT_A_TIME = 50


async def polite(server: ServerProcess) -> None:
    async with await RawPeer.connect_websocket(server.port) as peer:
        await connect_and_subscribe(peer, CROWD)
        await peer.send(encode_frame(CLOSE, struct.pack("!H", 1000)))
        await peer.read_close_frame()


async def abrupt(server: ServerProcess) -> None:
    peer = await RawPeer.connect_websocket(server.port)
    await connect_and_subscribe(peer, CROWD)
    peer.reset()


async def half_shaken(server: ServerProcess) -> None:
    peer = await RawPeer.connect_tcp(server.port)
    await peer.send(encode_upgrade_request()[:60])
    peer.reset()


async def silent(server: ServerProcess) -> None:
    (await RawPeer.connect_websocket(server.port)).close()


async def hasty(server: ServerProcess) -> None:
    """Gone before the answer."""
    peer = await RawPeer.connect_websocket(server.port)
    await peer.send(encode_frame(TEXT, b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"bare:hasty"}}'))
    peer.reset()


SHAPES = (polite, abrupt, half_shaken, silent, hasty)


async def visit(server: ServerProcess, count: int) -> None:
    """That many connections, of all shapes in turn, a few dozen at a time."""
    numbers = iter(range(count))

    async def visit_some() -> None:
        for number in numbers:
            await SHAPES[number % len(SHAPES)](server)

    await asyncio.gather(*(visit_some() for _ in range(AT_A_TIME)))


def announced(watcher: JSONClient, kind: str) -> Counter[str]:
    return Counter(push[kind]["info"]["client"] for push in watcher.pushes if kind in push)


def test_ten_thousand_come_and_go(start_server: StartServer) -> None:
    """Memory, connections, subscriptions and presence are as before; a watcher saw everyone come and go, once each."""
    server = start_server(
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
        await wait_metric(server, "beaconfire_connections", 0)
        before = server.resident_bytes()
        async with undisturbed_traffic(server), JSONClient.connect(server.port, channels=[CROWD]) as watcher:
            await visit(server, 10_000)
            await wait_until(lambda: len(announced(watcher, "leave")) == 4000, "the watcher saw everyone go")
            joins, leaves = announced(watcher, "join"), announced(watcher, "leave")
            del joins[watcher.client_id]
            assert joins == leaves
            assert set(joins.values()) == {1}
            reply = await watcher.request(presence={"channel": CROWD})
            assert list(reply["presence"]["presence"]) == [watcher.client_id]
        await wait_metric(server, "beaconfire_connections", 0)
        figure = await read_metrics(server)
        assert figure["beaconfire_subscriptions"] == figure["beaconfire_channels"] == figure["beaconfire_sessions"] == 0
        assert figure["beaconfire_queue_bytes"] == 0
        await wait_until(lambda: server.resident_bytes() - before < megabytes(3), "memory is back")
        status, answer = await http_request(server, "/api/presence_stats", b'{"channel":"watched:crowd"}')
        assert (status, answer) == (200, b'{"result":{"num_clients":0,"num_users":0}}')

    run_scenario(scenario())
