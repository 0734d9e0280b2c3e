"""What a server must do, and must not do, while its database cannot be written."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.acceptance.deadlines import wait_until
from tests.acceptance.disk.api_connection import ApiConnection
from tests.acceptance.disk.disk_server import DiskServer
from tests.acceptance.json_client import JSONClient
from tests.acceptance.server_state import http_request, read_metrics

REFUSAL_MAX_S = 0.1
"""How long a publish may take to be refused: the median of several, because the machine is busy with other tests."""

REFUSALS = 21
HEAL_DEADLINE_S = 30.0


async def publish_until_refused(api: ApiConnection, channel: str, data: str) -> dict[str, object]:
    """Publishes until the server refuses a publication. Returns the error."""
    while True:
        response = await api.call("publish", channel=channel, data=data)
        if "error" in response:
            error: dict[str, object] = response["error"]
            return error


async def assert_refuses(server: DiskServer, channel: str, reason: str) -> None:
    """Publishing to the channel gets error 100 at once, which the metrics count with the reason."""
    before = await _count_failures(server, reason)
    times_s = []
    async with ApiConnection.open(server.port) as api:
        for _ in range(REFUSALS):
            began_s = time.monotonic()
            response = await api.call("publish", channel=channel, data="refused")
            times_s.append(time.monotonic() - began_s)
            assert "error" in response, (len(times_s), response)
            assert response["error"]["code"] == 100, response
    assert sorted(times_s)[REFUSALS // 2] <= REFUSAL_MAX_S, times_s
    assert await _count_failures(server, reason) >= before + REFUSALS


async def assert_not_ready(server: DiskServer) -> None:
    """Readiness turns red soon, and names the file."""

    async def is_red() -> bool:
        status, body = await http_request(server, "/health/ready")
        return status == 503 and str(server.database) in body.decode()

    await wait_until(is_red, "readiness is red and names the file")


async def wait_healed(server: DiskServer, channel: str) -> None:
    """Waits until readiness is green and a publish to the channel succeeds."""

    async def is_healed() -> bool:
        status, _ = await http_request(server, "/health/ready")
        async with ApiConnection.open(server.port) as api:
            response = await api.call("publish", channel=channel, data="healed")
        return status == 200 and "result" in response

    await wait_until(is_healed, "the engine works again", HEAL_DEADLINE_S)


@asynccontextmanager
async def other_channels(server: DiskServer) -> AsyncIterator[OtherChannels]:
    """A client that is subscribed to a channel of durability `memory`, and to one without history."""
    channels = ["memory:room", "live:room"]
    async with JSONClient.connect(server.port, channels=channels) as client, ApiConnection.open(server.port) as api:
        yield OtherChannels(client, api, channels)
        assert not client.closed.done()


class OtherChannels:
    """Channels that do not use the file."""

    def __init__(self, client: JSONClient, api: ApiConnection, channels: list[str]) -> None:
        self._client = client
        self._api = api
        self._channels = channels
        self._number = 0

    async def assert_work(self) -> None:
        """A publication reaches the subscriber."""
        self._number += 1
        number = self._number
        for channel in self._channels:
            await self._api.publish(channel, number)
            await self._wait_received(channel, number)

    async def _wait_received(self, channel: str, number: int) -> None:
        await wait_until(lambda: number in self._client.received_data(channel), f"{channel} has publication {number}")


async def _count_failures(server: DiskServer, reason: str) -> float:
    metrics = await read_metrics(server)
    return metrics.get(f'beaconfire_engine_failures_total{{call="publish",reason="{reason}"}}', 0.0)
