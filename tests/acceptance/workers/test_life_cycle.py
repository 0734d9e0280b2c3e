"""The end of `beaconfire serve --workers 4`."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import AsyncExitStack

from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.server_state import http_request
from tests.acceptance.workers.conftest import start_group
from tests.acceptance.workers.group import WorkerGroup, is_alive

SHUTDOWN = 3001
DRAIN_DELAY_S = 60.0


def test_sigterm_disconnects_all_clients_and_leaves_nothing(own_group: WorkerGroup) -> None:
    """No process and no run directory is left, and the exit code is 0."""
    group = own_group

    async def scenario() -> None:
        pids = group.pids().values()
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(JSONClient.connect(group.port)) for _ in range(20)]
            group.send_signal(signal.SIGTERM)
            assert {(await client.closed).code for client in clients} == {SHUTDOWN}
            assert await asyncio.to_thread(group.wait_exit) == 0
        assert not any(map(is_alive, pids))
        assert group.run_directories() == []

    run_scenario(scenario())


def test_second_sigterm_skips_the_waits_of_the_drain() -> None:
    """The client is told to reconnect, as after the first one."""

    async def scenario(group: WorkerGroup) -> None:
        async def drains() -> bool:
            status, body = await http_request(group, "/health/ready")
            return status == 503 and b"draining" in body

        async with JSONClient.connect(group.port) as client:
            began_s = time.monotonic()
            group.send_signal(signal.SIGTERM)
            await wait_until(drains, "the workers drain")
            assert not client.closed.done()
            group.send_signal(signal.SIGTERM)
            assert (await client.closed).code == SHUTDOWN
            assert await asyncio.to_thread(group.wait_exit) == 0
            assert time.monotonic() - began_s < DRAIN_DELAY_S / 2
        assert group.run_directories() == []

    overrides = {"server__drain_delay": f"{DRAIN_DELAY_S:g}s", "server__shutdown_timeout": f"{2 * DRAIN_DELAY_S:g}s"}
    with start_group(**overrides) as group:
        run_scenario(scenario(group))


def test_workers_and_hub_end_after_the_supervisor_was_killed(own_group: WorkerGroup) -> None:
    """The clients are asked to reconnect, as after SIGTERM."""
    group = own_group

    async def scenario() -> None:
        pids = list(group.pids().values())
        async with JSONClient.connect(group.port) as client:
            group.send_signal(signal.SIGKILL)
            assert (await client.closed).code == SHUTDOWN
        await wait_until(lambda: not any(map(is_alive, pids)), "no process is left")
        assert group.run_directories() == []

    run_scenario(scenario())
