"""Many subscribers, each with a different tags filter of the maximum size."""

from __future__ import annotations

import asyncio
import json

from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario
from tests.acceptance.raw_peer import RawPeer, connect_and_subscribe, open_peers
from tests.acceptance.server_process import PERMISSIVE_CONFIG
from tests.acceptance.server_state import http_request

SUBSCRIBERS = 120
COMPARISONS = 63
PUBLICATIONS = 30
CHANNEL = "filtered:room"
CONFIG = PERMISSIVE_CONFIG + "[namespaces.filtered]\nallow_tags_filter = true\n"


def large_filter(number: int) -> dict[str, object]:
    """A filter that no other subscriber has. Only its last comparison matches."""
    never_matching = [
        {"key": f"k{index % 8}", "cmp": "gt", "val": f"{1000 + number}.{index}"} for index in range(COMPARISONS - 1)
    ]
    return {"op": "or", "nodes": [*never_matching, {"key": "k0", "cmp": "gte", "val": "0"}]}


def test_many_different_filters_do_not_delay_other_channels(start_server: StartServer) -> None:
    """Each subscriber receives all matching publications, once and in order, and other clients are undisturbed."""
    server = start_server({"client.message_rate_limit": "100000"}, CONFIG)

    async def scenario() -> None:
        async with (
            undisturbed_traffic(server, latency_max_s=1.0),
            open_peers(SUBSCRIBERS, lambda: RawPeer.connect_websocket(server.port)) as peers,
        ):
            for number, peer in enumerate(peers):
                await connect_and_subscribe(peer, CHANNEL, tf=large_filter(number))
            for number in range(PUBLICATIONS):
                body = {"channel": CHANNEL, "data": number, "tags": {f"k{index}": str(number) for index in range(8)}}
                status, response = await http_request(
                    server, "/api/publish", json.dumps(body).encode(), {"Content-Type": "application/json"}
                )
                assert (status, json.loads(response).get("error")) == (200, None)
            received = await asyncio.gather(*(read_publications(peer) for peer in peers))
            assert all(data == list(range(PUBLICATIONS)) for data in received)

    run_scenario(scenario())


async def read_publications(peer: RawPeer) -> list[int]:
    """Reads the data of all publications."""
    data: list[int] = []
    while len(data) < PUBLICATIONS:
        data += [message["push"]["pub"]["data"] for message in await peer.read_messages() if "push" in message]
    return data
