"""`kill -9` of the server during durable publishing, and of a producer. `make test-long` kills more often."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.disk.api_connection import read_history
from tests.acceptance.disk.disk_server import DiskServer, assert_intact
from tests.acceptance.disk.publishers import Record, publishing
from tests.acceptance.disk.watcher import Watcher

KILLS = int(os.environ.get("KILLS", "10"))
SEED = int(os.environ.get("KILL_SEED", "0")) or random.randrange(1, 2**32)
PUBLISHERS = 48
CHANNELS = [f"room{number}" for number in range(6)]
DEADLINE_S = 60.0 + 6.0 * KILLS

PRODUCER = Path(__file__).with_name("numbering_producer.py")
NUMBERS_PER_KILL_MAX = 80


async def kill_repeatedly(server: DiskServer, record: Record, rng: random.Random) -> None:
    """Kills the server each time that it has acknowledged some more publications, and starts it again."""
    for _ in range(KILLS):
        await record.wait_acknowledged(rng.randrange(1, 1500))
        server.stop(signal.SIGKILL)
        await asyncio.to_thread(server.start)


async def check_watcher(watcher: Watcher, server: DiskServer) -> None:
    stored = (await read_history(server.port, watcher.channel)).publications
    await wait_until(lambda: len(watcher.received) >= len(stored), "the subscriber has everything")
    assert watcher.received == stored
    assert 1 < watcher.subscribed <= KILLS + 1  # A server may end before the client is back.


@pytest.mark.timeout(DEADLINE_S + 60)
def test_kill_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Every acknowledged publication is in history at its offset, no offset is missing, and a publication that was
    repeated because of a missing answer is there once. Subscribers recover without a gap each time."""
    print(f"KILL_SEED={SEED}")

    async def scenario(server: DiskServer) -> None:
        record = Record()
        watchers = [Watcher(channel) for channel in CHANNELS[:2]]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(watcher.run(server.port)) for watcher in watchers]
            await wait_until(lambda: all(watcher.subscribed for watcher in watchers), "the clients have subscribed")
            async with publishing(server.port, CHANNELS, record, PUBLISHERS):
                await kill_repeatedly(server, record, random.Random(SEED))
            assert record.refused == []
            await record.check(server.port, CHANNELS)
            for watcher in watchers:
                await check_watcher(watcher, server)
            for task in tasks:
                task.cancel()
        slowest_s, median_s = max(server.start_times_s), sorted(server.start_times_s)[KILLS // 2]
        print(f"{KILLS} kills; starts: median {median_s:.2f} s, slowest {slowest_s:.2f} s")

    database = tmp_path / "history.db"
    with DiskServer(tmp_path, database) as server:
        run_scenario(scenario(server), DEADLINE_S)
        assert server.stop() == 0
    assert_intact(database)


@pytest.mark.timeout(DEADLINE_S + 60)
def test_killed_producer_publishes_each_number_once(tmp_path: Path) -> None:
    """A producer that is killed repeats the last number of its own record, and goes on from there."""
    print(f"KILL_SEED={SEED}")
    rng = random.Random(SEED)
    record, count = tmp_path / "last", KILLS * NUMBERS_PER_KILL_MAX

    async def scenario(server: DiskServer) -> None:
        for _ in range(KILLS):
            enough = _read(record) + rng.randrange(1, NUMBERS_PER_KILL_MAX)
            with start_producer(server.port, record, count) as producer:
                await wait_sent(record, enough)
                producer.kill()
        with start_producer(server.port, record, count) as producer:
            assert await asyncio.to_thread(producer.wait, 60) == 0
        stored = (await read_history(server.port, "orders")).publications
        assert stored == [(number, number) for number in range(1, count + 1)]

    with DiskServer(tmp_path, tmp_path / "history.db") as server:
        run_scenario(scenario(server), DEADLINE_S)


async def wait_sent(record: Path, number: int) -> None:
    await wait_until(lambda: _read(record) >= number, f"the producer has sent number {number}")


def start_producer(port: int, record: Path, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(PRODUCER), str(port), "orders", str(record), str(count)])


def _read(record: Path) -> int:
    return int(record.read_text()) if record.exists() else 0
