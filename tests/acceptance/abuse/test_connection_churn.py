"""Ten thousand clients connect and disconnect in different ways, and the server keeps no state of them."""

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

CHANNEL = "watched:crowd"
CONCURRENCY = 50


async def close_with_handshake(server: ServerProcess) -> None:
    async with await RawPeer.connect_websocket(server.port) as peer:
        await connect_and_subscribe(peer, CHANNEL)
        await peer.send(encode_frame(CLOSE, struct.pack("!H", 1000)))
        await peer.read_close_frame()


async def reset_after_subscribe(server: ServerProcess) -> None:
    peer = await RawPeer.connect_websocket(server.port)
    await connect_and_subscribe(peer, CHANNEL)
    peer.reset()


async def reset_during_handshake(server: ServerProcess) -> None:
    peer = await RawPeer.connect_tcp(server.port)
    await peer.send(encode_upgrade_request()[:60])
    peer.reset()


async def close_without_close_frame(server: ServerProcess) -> None:
    (await RawPeer.connect_websocket(server.port)).close()


async def reset_before_reply(server: ServerProcess) -> None:
    peer = await RawPeer.connect_websocket(server.port)
    await peer.send(encode_frame(TEXT, b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"bare:unanswered"}}'))
    peer.reset()


KINDS = (
    close_with_handshake,
    reset_after_subscribe,
    reset_during_handshake,
    close_without_close_frame,
    reset_before_reply,
)


async def connect_and_disconnect(server: ServerProcess, count: int) -> None:
    """Opens and ends `count` connections, `CONCURRENCY` at a time, of all kinds in turn."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await KINDS[number % len(KINDS)](server)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def test_ten_thousand_connections_leave_no_state(start_server: StartServer) -> None:
    """Memory, connections, subscriptions and presence are as before. A watcher gets one join and leave per client."""
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
        await connect_and_disconnect(server, 2000)  # the allocator keeps the memory of the first connections
        await wait_metric(server, "beaconfire_connections", 0)
        before = server.resident_bytes()
        async with undisturbed_traffic(server), JSONClient.connect(server.port, channels=[CHANNEL]) as watcher:
            await connect_and_disconnect(server, 10_000)
            await wait_until(lambda: len(set(watcher.received_clients("leave"))) == 4000, "the watcher has all leaves")
            joins, leaves = (Counter(watcher.received_clients(kind)) for kind in ("join", "leave"))
            del joins[watcher.client_id]
            assert joins == leaves
            assert set(joins.values()) == {1}
            reply = await watcher.request(presence={"channel": CHANNEL})
            assert list(reply["presence"]["presence"]) == [watcher.client_id]
        await wait_metric(server, "beaconfire_connections", 0)
        metrics = await read_metrics(server)
        assert (
            metrics["beaconfire_subscriptions"] == metrics["beaconfire_channels"] == metrics["beaconfire_sessions"] == 0
        )
        assert metrics["beaconfire_queue_bytes"] == 0
        await wait_until(lambda: server.resident_bytes() - before < megabytes(3), "the memory is freed")
        status, body = await http_request(server, "/api/presence_stats", b'{"channel":"watched:crowd"}')
        assert (status, body) == (200, b'{"result":{"num_clients":0,"num_users":0}}')

    run_scenario(scenario())
