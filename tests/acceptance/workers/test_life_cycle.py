"""The processes of `beaconfire serve --workers 4` from their start to their end."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack

from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.workers.group import WORKERS, WorkerGroup, is_alive

SHUTDOWN = 3001


def test_the_start_is_announced_once(group: WorkerGroup) -> None:
    """All processes serve then."""
    assert len(group.log_lines("server_started")) == 1
    assert set(group.pids()) == {"hub", *map(str, range(WORKERS))}


def test_sigterm_disconnects_all_clients_and_leaves_nothing(group: WorkerGroup) -> None:
    """No process and no run directory is left, and the exit code is 0."""

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


def test_workers_and_hub_end_after_the_supervisor_was_killed(group: WorkerGroup) -> None:
    """The clients are asked to reconnect, as after SIGTERM."""

    async def scenario() -> None:
        pids = list(group.pids().values())
        async with JSONClient.connect(group.port) as client:
            group.send_signal(signal.SIGKILL)
            assert (await client.closed).code == SHUTDOWN
        await wait_until(lambda: not any(map(is_alive, pids)), "no process is left")
        assert group.run_directories() == []

    run_scenario(scenario())


def test_a_roll_with_an_invalid_configuration_keeps_the_old_workers(group: WorkerGroup) -> None:
    """The log names the slot whose new worker did not start."""
    before = group.pids()
    group.config_file.write_text("[server]\nunknown = 1\n")
    group.send_signal(signal.SIGHUP)
    group.wait_log_line("roll_stopped", name="0")
    assert group.pids() == before

    async def connect() -> None:
        async with JSONClient.connect(group.port) as client:
            assert client.client_id

    run_scenario(connect())


def test_sighup_replaces_every_worker_and_keeps_the_hub(group: WorkerGroup) -> None:
    """The hub has the data."""
    before = group.pids()
    group.send_signal(signal.SIGHUP)
    group.wait_log_line("roll_finished", deadline_s=40)
    after = group.pids()
    assert after["hub"] == before["hub"]
    assert all(after[str(slot)] != before[str(slot)] for slot in range(WORKERS))


def test_a_killed_worker_is_replaced(group: WorkerGroup) -> None:
    """The status names the new process."""
    killed = group.pids()["1"]
    os.kill(killed, signal.SIGKILL)
    run_scenario(wait_until(lambda: group.pids().get("1", killed) != killed, "slot 1 has a new worker"))
