"""Clients that publish to any number of channels with history, and what the server keeps of it."""

from __future__ import annotations

from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario
from tests.acceptance.json_client import JSONClient
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import count_limit_hits, megabytes, read_metrics

BOUND_MB = 16
LIMIT = "engine.history_max_bytes"
BATCH = 20


async def publish_all(client: JSONClient, prefix: str, count: int, size: int) -> None:
    """Each into a channel of its own, where nobody listens."""
    for first in range(0, count, BATCH):
        commands = [
            {"publish": {"channel": f"{prefix}{number}", "data": "x" * size}}
            for number in range(first, min(count, first + BATCH))
        ]
        assert all("publish" in reply for reply in await client.request_all(commands)), "nobody is refused"


async def assert_bounded(server: ServerProcess, before: int) -> None:
    """Beside what the settings allow, the allocator's own use of it, pieces that are free and too small, and a little
    for the connections that talk meanwhile.
    """
    kept = (await read_metrics(server))["beaconfire_history_bytes"]
    assert 0.9 * megabytes(BOUND_MB) < kept <= megabytes(BOUND_MB), "the bound is reached, and holds"
    grown = server.resident_bytes() - before
    assert grown < megabytes(1.5 * BOUND_MB + 4), f"{grown / megabytes(1):.1f} MB"


def test_history_takes_no_more_memory_than_allowed(start_server: StartServer) -> None:
    """Nor do the positions of channels. The neighbours go on talking, and the newest publications are there.

    Who comes back for what was dropped hears that it was not recovered.
    """
    server = start_server(
        {
            LIMIT: f"{BOUND_MB}MiB",
            "client.byte_rate_limit": "1GiB",
            "client.message_rate_limit": "1000000",
            "websocket.message_size_limit": "1MiB",
        }
    )

    async def scenario() -> None:
        async with undisturbed_traffic(server), JSONClient.connect(server.port) as client:
            await publish_all(client, "warm-up", 100, 16_000)
            before = server.resident_bytes()
            assert await count_limit_hits(server, LIMIT) == 0
            await client.publish("warm-up1", "missed")
            epoch = (await client.request(history={"channel": "warm-up1"}))["history"]["epoch"]
            await publish_all(client, "large", 4000, 16_000)
            await assert_bounded(server, before)
            await publish_all(client, "small" + "l" * 200, 20_000, 1)
            await assert_bounded(server, before)
            assert await count_limit_hits(server, LIMIT) > 0
            last = await client.request(history={"channel": f"small{'l' * 200}19999", "limit": -1})
            assert len(last["history"]["publications"]) == 1
            gone = await client.request(subscribe={"channel": "warm-up1", "recover": True, "offset": 1, "epoch": epoch})
            assert gone["subscribe"]["was_recovering"]
            assert "recovered" not in gone["subscribe"]

    run_scenario(scenario())
