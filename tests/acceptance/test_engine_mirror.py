"""A migration with real processes: memory to SQLite and back under load, a kill in the middle, planted differences,
worker processes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.disk.api_connection import ApiConnection
from tests.acceptance.json_client import JSONClient
from tests.acceptance.server_process import API_KEY, PERMISSIVE_CONFIG, REFERENCE_CONFIG, ServerProcess
from tests.acceptance.test_engine_copy import fill
from tests.acceptance.workers.group import WorkerGroup

CHANNELS = int(os.environ.get("MIGRATION_CHANNELS", "2000"))
"""How many channels move."""

INTERNAL = 1
"""The channel of revocations moves as well."""

SAMPLE = 40
"""How many channels are recovered by a client after each restart."""

PER_CALL = 1000
"""How many channels one broadcast fills."""

CONFIG = PERMISSIVE_CONFIG.replace('history_ttl = "300s"', 'history_ttl = "1h"')


def settings(old: str, new: str, path: Path, old_path: Path | None = None) -> dict[str, str]:
    """The settings of a server whose engine `old` is mirrored into `new`. "" is no migration."""
    found = {"engine.type": old}
    if old == "sqlite":
        found |= {"engine.path": str(old_path or path), "channel.durability": "disk"}
    if new:
        found |= {"migration.to": new, "migration.path": str(path)}
    return found


async def mirror(server: ServerProcess, *arguments: object) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON document of `beaconfire engine mirror`."""
    command = [Path(sys.executable).with_name("beaconfire"), "engine", "mirror", "--url", server.http]
    process = await asyncio.create_subprocess_exec(
        *map(str, [*command, "--key", API_KEY, "--json", *arguments]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert output, errors.decode()
    assert process.returncode is not None
    return process.returncode, json.loads(output)


class Load:
    """Publishes through the API until the end of the block, and knows the position of each answered publish."""

    def __init__(self, port: int, channels: int) -> None:
        self._port = port
        self._channels = channels
        self.tops: dict[str, int] = {}
        self.answered = 0
        self._is_ending = False

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Load]:
        tasks = [asyncio.create_task(self._publish(random.Random(number))) for number in range(2)]
        yield self
        self._is_ending = True
        await asyncio.gather(*tasks)

    async def _publish(self, rng: random.Random) -> None:
        async with ApiConnection.open(self._port) as api:
            while not self._is_ending:
                channel = f"channel-{rng.randrange(self._channels)}"
                receipt = await api.publish(channel, {"n": rng.random()})
                self.answered += 1
                self.tops[channel] = max(receipt["offset"], self.tops.get(channel, 0))


async def fill_by_api(port: int) -> None:
    """One publication in each channel."""
    async with ApiConnection.open(port) as api:
        for start in range(0, CHANNELS, PER_CALL):
            names = [f"channel-{number}" for number in range(start, min(start + PER_CALL, CHANNELS))]
            assert "result" in await api.call("broadcast", channels=names, data={"first": True})


async def positions(port: int, channels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The position of each channel."""
    async with ApiConnection.open(port) as api:
        found = {}
        for channel in channels:
            result = (await api.call("history", channel=channel, limit=0))["result"]
            found[channel] = {"offset": result.get("offset", 0), "epoch": result["epoch"]}
        return found


async def assert_recovers(port: int, known: dict[str, dict[str, Any]], tops: dict[str, int]) -> None:
    """A client that has the position of the first publication gets every publication after it."""
    async with JSONClient.connect(port) as client:
        for channel, position in known.items():
            reply = await client.request(subscribe={"channel": channel, "recover": True, **position})
            result = reply["subscribe"]
            assert result["recovered"] is True, (channel, position, result)
            offsets = [publication["offset"] for publication in result.get("publications", [])]
            top = position["offset"] + len(offsets)
            assert offsets == list(range(position["offset"] + 1, top + 1))
            assert top >= tops.get(channel, 0)


@pytest.mark.timeout(1800)
def test_memory_to_sqlite_and_back_under_load(tmp_path: Path) -> None:
    """After each restart, clients with positions of the very beginning recover without a gap. 0 differences at each
    verification, which runs while publications go on."""
    path = tmp_path / "history.db"
    names = [f"channel-{number}" for number in random.Random(1).sample(range(CHANNELS), SAMPLE)]

    async def verify(server: ServerProcess, *arguments: object) -> None:
        start_s = time.monotonic()
        code, status = await mirror(server, "--verify", *arguments)
        verified = status["verified"]
        assert (code, verified.get("differences", []), verified["different"]) == (0, [], 0)
        assert verified["old"] == verified["new"]
        assert verified["old"]["channels"] == CHANNELS + INTERNAL
        print(f"{status['old']} -> {status['new']}: {verified}, {time.monotonic() - start_s:.1f} s")

    async def run() -> None:
        known: dict[str, dict[str, Any]] = {}
        tops: dict[str, int] = {}
        for old, new in (("memory", "sqlite"), ("sqlite", ""), ("memory", "sqlite")):
            start_s = time.monotonic()
            with ServerProcess(tmp_path, CONFIG, settings(old, new, path)) as server:
                print(f"{old}: started in {time.monotonic() - start_s:.1f} s")
                if not known:
                    await fill_by_api(server.port)
                    known = await positions(server.port, names)
                await assert_recovers(server.port, known, tops)
                async with Load(server.port, CHANNELS).run() as load:
                    begun_s = time.monotonic()
                    if new:
                        await verify(server)
                        await verify(server, "--read-percent", 100)
                        await asyncio.to_thread(server.wait_log_line, "migration_read_changed", percent=100.0)
                        await assert_recovers(server.port, known, load.tops)
                    else:
                        await assert_recovers(server.port, known, load.tops)
                tops |= load.tops
                print(f"{old}: {load.answered} publications answered in {time.monotonic() - begun_s:.1f} s")
                stop_s = time.monotonic()
                assert await asyncio.to_thread(server.stop) == 0
                print(f"{old}: stopped in {time.monotonic() - stop_s:.1f} s")

    asyncio.run(run())


@pytest.mark.timeout(600)
def test_a_migration_that_was_killed_goes_on(tmp_path: Path) -> None:
    """The second start copies only the rest, and ends without a difference."""
    asyncio.run(fill(tmp_path, CHANNELS))
    old_path, path = tmp_path / "history.db", tmp_path / "new.db"

    def copied() -> int:
        """A stream without a channel was replaced, and is removed in slices."""
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                (count,) = connection.execute("SELECT count(channel) FROM streams").fetchone()
                return int(count)
        except sqlite3.Error:
            return 0

    async def run() -> None:
        with ServerProcess(tmp_path, CONFIG, settings("sqlite", "sqlite", path, old_path)) as server:
            while not copied():  # noqa: ASYNC110 - the state of another process
                await asyncio.sleep(0.001)
            server.stop(signal.SIGKILL)
            assert copied() > 0
            server.start()
            code, status = await mirror(server, "--verify")
            assert (code, status["verified"]["different"]) == (0, 0)
            assert status["verified"]["new"]["channels"] == CHANNELS + INTERNAL == copied()

    asyncio.run(run())


@pytest.mark.timeout(120)
def test_a_planted_difference_is_found_and_mended(tmp_path: Path) -> None:
    """The exit code is 1, the percentage is not changed, and the channel is copied again."""
    path = tmp_path / "new.db"

    async def run() -> None:
        with ServerProcess(tmp_path, CONFIG, settings("memory", "sqlite", path)) as server:
            async with ApiConnection.open(server.port) as api:
                for number in range(20):
                    await api.publish(f"channel-{number}", {})
            assert (await mirror(server))[0] == 0
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute(
                    "UPDATE publications SET data = x'00' WHERE stream = "
                    "(SELECT id FROM streams WHERE channel = 'channel-7')"
                )
            code, status = await mirror(server, "--verify", "--read-percent", 50)
            assert (code, status["verified"]["different"], status["read_percent"]) == (1, 1, 0.0)
            assert status["verified"]["differences"] == [{"channel": "channel-7", "what": "publication 1: data differ"}]
            code, status = await mirror(server, "--verify", "--read-percent", 50)
            assert (code, status["verified"]["different"], status["read_percent"]) == (0, 0, 50.0)
            code, status = await mirror(server, "--read-percent", 0, "--no-wait")
            assert (code, status["read_percent"]) == (0, 0.0)

    asyncio.run(run())


@pytest.mark.timeout(120)
def test_worker_processes_have_one_migration() -> None:
    """Any worker answers for the hub. If the hub is killed, clients keep their positions: the memory engine gets them
    from the file."""

    async def run(folder: Path) -> None:
        server = WorkerGroup(folder, CONFIG, settings("memory", "sqlite", folder / "new.db"))
        with server:
            async with ApiConnection.open(server.port) as api:
                for number in range(20):
                    await api.publish(f"channel-{number}", {})
            known = await positions(server.port, ["channel-1", "channel-2"])
            code, status = await mirror(server, "--verify", "--read-percent", 25)
            assert (code, status["verified"]["new"]["channels"]) == (0, 20 + INTERNAL)
            for _ in range(8):  # Each call is a connection, which any worker may accept.
                assert (await mirror(server, "--no-wait"))[1]["read_percent"] == 25.0
            async with httpx.AsyncClient() as http:
                metrics = (await http.get(f"{server.http}/metrics")).text
            assert 'beaconfire_migration_read_percent{worker="hub"} 25.0' in metrics
            os.kill(server.pids()["hub"], signal.SIGKILL)
            await asyncio.to_thread(
                server.wait_log_line, "migration_progressed", step="restored", channels=20 + INTERNAL
            )
            while (await mirror(server, "--verify"))[1]["verified"]["new"]["channels"] != 20 + INTERNAL:
                pass
            await assert_recovers(server.port, known, {})

    with tempfile.TemporaryDirectory(prefix="bf", ignore_cleanup_errors=True) as short:  # the path of a socket is short
        asyncio.run(run(Path(short)))


@pytest.mark.parametrize("problem", ["no migration", "wrong key", "no server"])
def test_errors_name_the_remedy(tmp_path: Path, problem: str) -> None:
    """The exit code is 2 for wrong usage, 1 if the server cannot be reached."""

    async def run() -> tuple[int | None, str]:
        with ServerProcess(tmp_path, REFERENCE_CONFIG) as server:
            key = "wrong" if problem == "wrong key" else API_KEY
            if problem == "no server":
                server.stop()
            command = Path(sys.executable).with_name("beaconfire")
            process = await asyncio.create_subprocess_exec(
                *(str(command), "engine", "mirror", "--no-wait", "--url", server.http, "--key", key),
                stderr=asyncio.subprocess.PIPE,
            )
            _, errors = await process.communicate()
            return process.returncode, errors.decode()

    code, errors = asyncio.run(run())
    assert code == (1 if problem == "no server" else 2)
    remedy = {"no migration": "set migration.to", "wrong key": "--key", "no server": "cannot be reached"}
    assert remedy[problem] in errors
