"""Workers and the hub are killed, and workers are replaced, while clients connect, subscribe and publish.

`CHAOS_S` and `CHAOS_RATE` make the second test longer and harder.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.disk.disk_server import CONFIG, assert_intact
from tests.acceptance.disk.publishers import Record, publishing
from tests.acceptance.disk.watcher import Watcher
from tests.acceptance.raw_peer import ClosedError, RawPeer
from tests.acceptance.server_state import http_request, read_metrics
from tests.acceptance.workers.group import WORKERS, WorkerGroup

CHANNELS = [f"room{number}" for number in range(4)]
HUB_KILLS = 2
"""One more would be a crash loop, which delays the next start."""
CHAOS_S = float(os.environ.get("CHAOS_S", "12"))
CHAOS_RATE = float(os.environ.get("CHAOS_RATE", "40"))
"""New connections per second."""

KILL_EVERY_S, ROLL_EVERY_S = 3.0, 10.0
KILL_EFFECT_S = 0.25
"""How long after a kill a client may see that its connection, which the killed worker had accepted, was cut off in the
middle of the handshake."""


@pytest.fixture
def durable_group() -> Iterator[WorkerGroup]:
    """Four workers with the SQLite engine."""
    with tempfile.TemporaryDirectory(prefix="bf", ignore_cleanup_errors=True) as folder:
        database = Path(folder) / "history.db"
        group = WorkerGroup(Path(folder), CONFIG, {"engine.path": str(database)})
        with group:
            yield group
            if group.is_running:
                assert group.stop() == 0
        assert_intact(database)


async def check(watchers: list[Watcher], record: Record, port: int) -> None:
    """Nothing that was acknowledged is missing, nothing is there twice, and every subscriber has everything."""
    await record.check(port, CHANNELS)
    for watcher in watchers:
        stored = [receipt for receipt in record.receipts.values() if receipt.channel == watcher.channel]
        await wait_until(partial(_has_all, watcher, len(stored)), "the subscriber has everything")


def _has_all(watcher: Watcher, count: int) -> bool:
    return len(watcher.received) >= count


def test_a_killed_hub_closes_no_connection_and_loses_nothing(durable_group: WorkerGroup) -> None:
    """Publishers get a temporary error and repeat. Subscribers stay connected, and get everything once and in order."""

    async def is_ready() -> bool:
        return (await http_request(durable_group, "/health/ready"))[0] == 200

    async def scenario() -> None:
        record, watchers, healed_s = Record(), [Watcher(channel) for channel in CHANNELS * 2], []
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(watcher.run(durable_group.port)) for watcher in watchers]
            await wait_until(lambda: all(watcher.subscribed for watcher in watchers), "all have subscribed")
            async with publishing(durable_group.port, CHANNELS, record, 12):
                for _ in range(HUB_KILLS):
                    await record.wait_acknowledged(50)
                    os.kill(durable_group.pids()["hub"], signal.SIGKILL)
                    began_s = time.monotonic()
                    await record.wait_refused()
                    await record.wait_acknowledged(50)
                    healed_s.append(time.monotonic() - began_s)
                    await wait_until(is_ready, "all workers have the hub again")
            await check(watchers, record, durable_group.port)
            assert [watcher.subscribed for watcher in watchers] == [1] * len(watchers)
            assert {refused["code"] for refused in record.refused} == {100}
            for task in running:
                task.cancel()
        print(f"{HUB_KILLS} kills of the hub; 50 acknowledged after {[round(each, 2) for each in healed_s]} s")

    run_scenario(scenario())


def _is_calm(group: WorkerGroup) -> bool:
    """Whether no worker is started or hands over, and none will be."""
    ended = len(group.log_lines("roll_finished")) + len(group.log_lines("roll_stopped"))
    processes = group.status().processes
    return (
        len(group.log_lines("roll_started")) == ended
        and len(processes) == WORKERS + 1
        and all(process.state == "ready" for process in processes)
    )


class Visitors:
    """Clients that connect, subscribe, wait for a moment and leave."""

    def __init__(self, port: int) -> None:
        self.served = 0
        self.failures: list[tuple[float, str]] = []
        """When and why clients were not served; monotonic."""
        self._port = port

    async def visit(self) -> None:
        try:
            peer = await RawPeer.connect_websocket(self._port)
        except (OSError, EOFError, AssertionError) as error:
            self.failures.append((time.monotonic(), repr(error)))
            return
        try:
            subscribe = {"channel": random.choice(CHANNELS)}
            await peer.send_json({"id": 1, "connect": {}}, {"id": 2, "subscribe": subscribe})
            await peer.read_messages()
            await asyncio.sleep(random.uniform(0, 2))
            self.served += 1
        except (OSError, ClosedError):
            self.served += 1  # the worker was killed or has handed the client over: the client was connected
        finally:
            peer.close()


async def disturb(group: WorkerGroup, end_s: float, kills_s: list[float]) -> None:
    """Kills one worker after the other, and replaces all from time to time."""
    next_roll_s = time.monotonic() + 1.0
    slot = 0
    while time.monotonic() < end_s:
        if time.monotonic() >= next_roll_s:
            next_roll_s += ROLL_EVERY_S
            group.send_signal(signal.SIGHUP)
        await asyncio.sleep(KILL_EVERY_S)
        pid = group.pids().get(str(slot % WORKERS))
        if pid is not None:
            kills_s.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)
        slot += 1


@pytest.mark.timeout(CHAOS_S + 120)
def test_killed_and_replaced_workers_refuse_and_lose_nothing(durable_group: WorkerGroup) -> None:
    """No connection is refused or reset, except those whose handshake a worker had begun when it was killed. No
    acknowledged publication is missing or doubled; subscribers recover without a gap."""

    async def scenario() -> None:
        record, watchers, visitors = Record(), [Watcher(channel) for channel in CHANNELS], Visitors(durable_group.port)
        kills_s: list[float] = []
        end_s = time.monotonic() + CHAOS_S
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(watcher.run(durable_group.port)) for watcher in watchers]
            await wait_until(lambda: all(watcher.subscribed for watcher in watchers), "all have subscribed")
            async with publishing(durable_group.port, CHANNELS, record, 12), asyncio.TaskGroup() as visits:
                visits.create_task(disturb(durable_group, end_s, kills_s))
                while time.monotonic() < end_s:
                    visits.create_task(visitors.visit())
                    await asyncio.sleep(1 / CHAOS_RATE)
            # A worker that hands over closes each HTTP connection after a response, also that of the check.
            await wait_until(lambda: _is_calm(durable_group), "all workers serve", 60)
            await check(watchers, record, durable_group.port)
            for task in running:
                task.cancel()
        unexplained = [
            (at_s, why)
            for at_s, why in visitors.failures
            if not any(0 <= at_s - kill_s <= KILL_EFFECT_S for kill_s in kills_s)
        ]
        rolls = len(durable_group.log_lines("roll_finished"))
        print(
            f"{len(kills_s)} kills, {rolls} rolls, {visitors.served} served, "
            f"{len(visitors.failures)} cut off by a kill during the handshake, {len(record.receipts)} acknowledged"
        )
        assert unexplained == []
        assert visitors.served > CHAOS_S * CHAOS_RATE / 2
        assert len(kills_s) >= int(CHAOS_S / KILL_EVERY_S) - 1

    run_scenario(scenario(), CHAOS_S + 100)


def test_connections_are_spread_over_the_workers(durable_group: WorkerGroup) -> None:
    """No worker has more than 1.3 times its share of 1,000 connections."""

    async def scenario() -> None:
        peers = [await RawPeer.connect_websocket(durable_group.port) for _ in range(1000)]
        metrics = await read_metrics(durable_group)
        counts = [metrics[f'beaconfire_connections{{worker="{slot}"}}'] for slot in range(WORKERS)]
        for peer in peers:
            peer.close()
        print(f"connections per worker: {counts}")
        assert sum(counts) == 1000
        assert max(counts) <= 1.3 * 1000 / WORKERS

    run_scenario(scenario())
