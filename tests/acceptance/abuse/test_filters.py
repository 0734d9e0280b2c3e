"""Subscribers whose filters are as large as they may be, and all different."""

from __future__ import annotations

import asyncio
import json

from tests.acceptance.abuse.conftest import Serve
from tests.acceptance.abuse.surroundings import OPEN_HOUSE, enter, http, undisturbed
from tests.acceptance.peer import Peer, company, run

CROWD = 120
COMPARISONS = 63
PUBLICATIONS = 30
ROOM = "choosy:room"
CONFIG = OPEN_HOUSE + "[namespaces.choosy]\nallow_tags_filter = true\n"


def costly(number: int) -> dict[str, object]:
    """A filter that only its last comparison lets anything pass, and nobody else's."""
    never = [
        {"key": f"k{index % 8}", "cmp": "gt", "val": f"{1000 + number}.{index}"} for index in range(COMPARISONS - 1)
    ]
    return {"op": "or", "nodes": [*never, {"key": "k0", "cmp": "gte", "val": "0"}]}


def test_many_different_filters_delay_nobody(serve: Serve) -> None:
    """Everybody gets what passes its filter, once and in order, and the neighbours their messages in time."""
    server = serve({"client.message_rate_limit": "100000"}, CONFIG)

    async def scenario() -> None:
        async with (
            undisturbed(server, prompt_s=1.0),
            company(CROWD, lambda: Peer.open(server.port)) as crowd,
        ):
            for number, peer in enumerate(crowd):
                await enter(peer, ROOM, tf=costly(number))
            for number in range(PUBLICATIONS):
                body = {"channel": ROOM, "data": number, "tags": {f"k{index}": str(number) for index in range(8)}}
                status, answer = await http(
                    server, "/api/publish", json.dumps(body).encode(), {"Content-Type": "application/json"}
                )
                assert (status, json.loads(answer).get("error")) == (200, None)
            told = await asyncio.gather(*(read(peer) for peer in crowd))
            assert all(data == list(range(PUBLICATIONS)) for data in told)

    run(scenario())


async def read(peer: Peer) -> list[int]:
    """What is published, until all of it has come."""
    data: list[int] = []
    while len(data) < PUBLICATIONS:
        data += [message["push"]["pub"]["data"] for message in await peer.messages() if "push" in message]
    return data
