"""Subscribers whose filters are as large as they may be, and all different."""

from __future__ import annotations

import asyncio
import json

from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario
from tests.acceptance.raw_peer import RawPeer, connect_and_subscribe, open_peers
from tests.acceptance.server_process import PERMISSIVE_CONFIG
from tests.acceptance.server_state import http_request

CROWD = 120
COMPARISONS = 63
PUBLICATIONS = 30
ROOM = "choosy:room"
CONFIG = PERMISSIVE_CONFIG + "[namespaces.choosy]\nallow_tags_filter = true\n"


def large_filter(number: int) -> dict[str, object]:
    """A filter that only its last comparison lets anything pass, and nobody else's."""
    never = [
        {"key": f"k{index % 8}", "cmp": "gt", "val": f"{1000 + number}.{index}"} for index in range(COMPARISONS - 1)
    ]
    return {"op": "or", "nodes": [*never, {"key": "k0", "cmp": "gte", "val": "0"}]}


def test_many_different_filters_delay_nobody(start_server: StartServer) -> None:
    """Everybody gets what passes its filter, once and in order, and the neighbours their messages in time."""
    server = start_server({"client.message_rate_limit": "100000"}, CONFIG)

    async def scenario() -> None:
        async with (
            undisturbed_traffic(server, latency_max_s=1.0),
            open_peers(CROWD, lambda: RawPeer.connect_websocket(server.port)) as crowd,
        ):
            for number, peer in enumerate(crowd):
                await connect_and_subscribe(peer, ROOM, tf=large_filter(number))
            for number in range(PUBLICATIONS):
                body = {"channel": ROOM, "data": number, "tags": {f"k{index}": str(number) for index in range(8)}}
                status, answer = await http_request(
                    server, "/api/publish", json.dumps(body).encode(), {"Content-Type": "application/json"}
                )
                assert (status, json.loads(answer).get("error")) == (200, None)
            told = await asyncio.gather(*(read(peer) for peer in crowd))
            assert all(data == list(range(PUBLICATIONS)) for data in told)

    run_scenario(scenario())


async def read(peer: RawPeer) -> list[int]:
    """What is published, until all of it has come."""
    data: list[int] = []
    while len(data) < PUBLICATIONS:
        data += [message["push"]["pub"]["data"] for message in await peer.read_messages() if "push" in message]
    return data
