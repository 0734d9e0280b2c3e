"""The workers appear as one server."""

from __future__ import annotations

import json
import os
import signal
from contextlib import AsyncExitStack

from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.server_state import http_request, read_metrics
from tests.acceptance.workers.group import WORKERS, WorkerGroup

CHANNEL = "watched:all"
CLIENTS = 64
"""So many that each worker has some."""


async def call(group: WorkerGroup, method: str, **parameters: object) -> dict[str, object]:
    status, body = await http_request(group, f"/api/{method}", json.dumps(parameters).encode())
    assert status == 200, body
    reply = json.loads(body)
    assert "result" in reply, reply
    return dict(reply["result"])


def test_publish_presence_and_metrics_cover_all_workers(group: WorkerGroup) -> None:
    """Whichever worker is asked."""

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(JSONClient.connect(group.port, channels=[CHANNEL]))
                for _ in range(CLIENTS)
            ]
            await call(group, "publish", channel=CHANNEL, data=1)
            await wait_until(lambda: all(each.received_data(CHANNEL) == [1] for each in clients), "all have received")
            presence = await call(group, "presence", channel=CHANNEL)
            assert set(presence["presence"]) == {client.client_id for client in clients}  # type: ignore[call-overload]
            assert len((await call(group, "info"))["nodes"]) == WORKERS  # type: ignore[arg-type]
            metrics = await read_metrics(group)
            values = [value for name, value in metrics.items() if name.startswith("beaconfire_connections{")]
            assert sum(values) == CLIENTS, values
            assert sum(value > 0 for value in values) == WORKERS, values

    run_scenario(scenario())


def test_no_connection_is_closed_when_the_hub_is_killed(group: WorkerGroup) -> None:
    """Also with the memory engine."""

    async def scenario() -> None:
        async with JSONClient.connect(group.port, channels=["bare:x"]) as client:
            killed = group.pids()["hub"]
            os.kill(killed, signal.SIGKILL)
            await wait_until(lambda: group.pids().get("hub", killed) != killed, "there is a new hub")

            async def is_ready() -> bool:
                return (await http_request(group, "/health/ready"))[0] == 200

            await wait_until(is_ready, "all workers are ready")
            await call(group, "publish", channel="bare:x", data=1)
            await wait_until(lambda: client.received_data("bare:x") == [1], "the worker has healed")
            assert not client.closed.done()

    run_scenario(scenario())
