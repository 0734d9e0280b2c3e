"""Worker processes on the engine `redis`: each is a node of its own, and they form a cluster with other machines."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.disk.api_connection import ApiConnection
from tests.acceptance.json_client import JSONClient
from tests.acceptance.redis_trouble.conftest import CONFIG
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.workers.group import WorkerGroup
from tests.servers.redis_server import RedisServer

CHANNEL = "room"


def test_workers_and_another_server_share_everything() -> None:
    """Publications, presence, joins, `info`, and messages to users reach both, whichever gets the request."""

    async def scenario(folder: Path, redis: RedisServer) -> None:
        group = WorkerGroup(folder, CONFIG, {"redis.url": redis.url, "server.workers": "2"})
        single = ServerProcess(folder, CONFIG, {"redis.url": redis.url})
        try:
            await asyncio.to_thread(group.start)
            await asyncio.to_thread(single.start)
            async with (
                JSONClient.connect(group.port, channels=[CHANNEL]) as one,
                JSONClient.connect(single.port, channels=[CHANNEL]) as two,
                ApiConnection.open(group.port) as api,
                ApiConnection.open(single.port) as other_api,
            ):
                for each in (api, other_api):
                    await each.publish(CHANNEL, "hello")
                    assert (await each.call("presence_stats", channel=CHANNEL))["result"]["num_clients"] == 2
                    assert len((await each.call("info"))["result"]["nodes"]) == 3
                    assert len((await each.call("connections"))["result"]["connections"]) == 2
                for client in (one, two):
                    await wait_until(lambda client=client: len(client.received_data(CHANNEL)) == 2, "both arrive")  # type: ignore[misc]
                await api.call("disconnect", client=two.client_id)
                await wait_until(two.closed.done, "the other server has disconnected its client")
        finally:
            single.__exit__(None, None, None)
            group.__exit__(None, None, None)

    with tempfile.TemporaryDirectory(prefix="w-") as folder:
        redis = RedisServer()
        redis.start()
        try:
            run_scenario(scenario(Path(folder), redis))
        finally:
            redis.close()
