"""Workers that are replaced: because they have ended, or by SIGHUP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import AsyncExitStack
from itertools import pairwise

from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.server_process import PERMISSIVE_CONFIG
from tests.acceptance.server_state import http_request, read_metrics
from tests.acceptance.workers.group import WORKERS, WorkerGroup

INVALID_CONFIG = "[server]\nunknown = 1\n"
UNKNOWN_CHANNEL = 102
CLIENTS = 64
"""So many that some connections are for each slot."""

LOOPING = "2"
NEIGHBOUR = "3"
"""The worker that accepts the connections of the slot `LOOPING`."""


def test_the_start_is_announced_once(group: WorkerGroup) -> None:
    """All processes serve then."""
    assert len(group.log_lines("server_started")) == 1
    assert set(group.pids()) == {"hub", *map(str, range(WORKERS))}


def test_a_second_server_on_the_same_port_is_refused(group: WorkerGroup) -> None:
    """The error names the address. The first server is not affected, and nothing of the second one is left."""
    before, directories = group.pids(), group.run_directories()
    second = subprocess.run(
        group._command(), env={**os.environ, "TMPDIR": str(group.folder)}, capture_output=True, text=True, check=False
    )
    assert second.returncode == 2
    error = second.stderr.splitlines()[-1]
    assert f"cannot listen on server.host 127.0.0.1, server.port {group.port}: Address already in use" in error
    assert "Traceback" not in second.stderr
    assert (group.pids(), group.run_directories()) == (before, directories)


def test_a_killed_worker_is_replaced(group: WorkerGroup) -> None:
    """The status names the new process."""
    killed = group.pids()["1"]
    os.kill(killed, signal.SIGKILL)
    run_scenario(wait_until(lambda: group.pids().get("1", killed) != killed, "slot 1 has a new worker"))


def test_a_roll_with_an_invalid_configuration_keeps_the_old_workers(group: WorkerGroup) -> None:
    """The log names the slot whose new worker did not start, and the setting."""

    async def scenario() -> None:
        before, stopped = group.pids(), len(group.log_lines("roll_stopped"))
        group.config_file.write_text(INVALID_CONFIG)
        group.send_signal(signal.SIGHUP)
        await wait_until(lambda: len(group.log_lines("roll_stopped")) > stopped, "the roll has stopped")
        assert group.log_lines("roll_stopped")[-1]["name"] == "0"
        assert any("server.unknown" in line.get("text", "") for line in group.log_lines("unparsed"))
        assert group.pids() == before
        async with JSONClient.connect(group.port) as client:
            assert client.client_id

    run_scenario(scenario())


def test_sighup_replaces_every_worker_with_the_new_configuration(group: WorkerGroup) -> None:
    """The hub stays, because it has the data."""

    async def scenario() -> None:
        before, finished = group.pids(), len(group.log_lines("roll_finished"))
        async with JSONClient.connect(group.port) as client:
            assert await client.request_code(subscribe={"channel": "fresh:x"}) == UNKNOWN_CHANNEL
        group.config_file.write_text(PERMISSIVE_CONFIG + "[namespaces.fresh]\n")
        group.send_signal(signal.SIGHUP)
        await wait_until(lambda: len(group.log_lines("roll_finished")) > finished, "all workers are replaced", 45)
        after = group.pids()
        assert after["hub"] == before["hub"]
        assert all(after[str(slot)] != before[str(slot)] for slot in range(WORKERS))
        async with AsyncExitStack() as stack:
            for _ in range(CLIENTS):
                await stack.enter_async_context(JSONClient.connect(group.port, channels=["fresh:x"]))

    run_scenario(scenario(), 90)


def test_a_worker_in_a_crash_loop_is_covered_and_shown(group: WorkerGroup) -> None:
    """Each start waits longer. The neighbour accepts the connections of the slot, and readiness names the worker.

    The cause is repaired: the worker starts, and readiness is right again.
    """

    async def readiness() -> str:
        """The check of the workers."""
        status, body = await http_request(group, "/health/ready")
        check = json.loads(body)["checks"]["workers"]
        assert (check == "ok") or status == 503
        return str(check)

    async def is_shown() -> bool:
        return (await readiness()).startswith(f"{LOOPING} has ended ")

    async def scenario() -> None:
        group.config_file.write_text(INVALID_CONFIG)
        os.kill(group.pids()[LOOPING], signal.SIGKILL)
        await wait_until(is_shown, "readiness names the worker")
        assert (await readiness()).endswith("exit code 2")
        async with AsyncExitStack() as stack:
            for _ in range(CLIENTS):
                await stack.enter_async_context(JSONClient.connect(group.port))
            metrics = await read_metrics(group)
            counts = {slot: metrics.get(f'beaconfire_connections{{worker="{slot}"}}', 0) for slot in range(WORKERS)}
            assert sum(counts.values()) == CLIENTS
            assert counts[int(LOOPING)] == 0
            assert counts[int(NEIGHBOUR)] > CLIENTS / WORKERS, counts
            assert metrics[f'beaconfire_worker_up{{worker="{LOOPING}"}}'] == 0
        delays_s = [line["delay_s"] for line in group.log_lines("process_ended") if line["name"] == LOOPING][-3:]
        assert all(earlier < later <= 5 for earlier, later in pairwise(delays_s)), delays_s
        group.config_file.write_text(PERMISSIVE_CONFIG)
        await wait_until(lambda: LOOPING in group.pids(), "the worker starts")
        await wait_until(group.is_ready, "readiness is right again", 30)

    run_scenario(scenario(), 90)
