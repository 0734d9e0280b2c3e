"""Clients publish to many channels with history, and the memory for all history stays within its limit."""

from __future__ import annotations

from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario
from tests.acceptance.json_client import JSONClient
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import count_limit_hits, megabytes, read_metrics

LIMIT_MB = 16
LIMIT = "engine.history_max_bytes"
COMMANDS_PER_MESSAGE = 20


async def publish_all(client: JSONClient, prefix: str, count: int, size: int) -> None:
    """Publishes `count` messages of `size` bytes, each to a different channel without subscribers."""
    for first in range(0, count, COMMANDS_PER_MESSAGE):
        commands = [
            {"publish": {"channel": f"{prefix}{number}", "data": "x" * size}}
            for number in range(first, min(count, first + COMMANDS_PER_MESSAGE))
        ]
        assert all("publish" in reply for reply in await client.request_all(commands)), (
            "the server refuses no publication"
        )


async def assert_bounded(server: ServerProcess, before: int) -> None:
    """Fails unless history fills its limit, and the process grew by at most 1.5 times the limit and 4 MB.

    The process grows more than the history because of the allocator's overhead and fragmentation, and because of the
    connections of the test.
    """
    used = (await read_metrics(server))["beaconfire_history_bytes"]
    assert 0.9 * megabytes(LIMIT_MB) < used <= megabytes(LIMIT_MB), "history fills the limit and stays within it"
    grown = server.resident_bytes() - before
    assert grown < megabytes(1.5 * LIMIT_MB + 4), f"{grown / megabytes(1):.1f} MB"


def test_history_of_all_channels_stays_within_engine_history_max_bytes(start_server: StartServer) -> None:
    """The server drops the oldest publications, and the positions of channels count as well.

    Other clients are undisturbed, the newest publications are kept, and a client that tries to recover dropped
    publications gets `recovered` false.
    """
    server = start_server(
        {
            LIMIT: f"{LIMIT_MB}MiB",
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
            reply = await client.request(
                subscribe={"channel": "warm-up1", "recover": True, "offset": 1, "epoch": epoch}
            )
            assert reply["subscribe"]["was_recovering"]
            assert "recovered" not in reply["subscribe"]

    run_scenario(scenario())
