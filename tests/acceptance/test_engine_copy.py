"""`beaconfire engine copy` as a process: a copy, a kill in the middle, a planted difference, a server on the copy."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import Raw

from beaconfire.base.clock import SystemClock
from beaconfire.engines.port import HistoryOptions, PublishOptions
from beaconfire.engines.transfer import SLICE_CHANNELS
from tests.acceptance.server_process import API_KEY, PERMISSIVE_CONFIG, ServerProcess
from tests.conformance.engines.harness import Node, sqlite_on_file

CHANNELS = int(os.environ.get("MIGRATION_CHANNELS", "2000"))
"""How many channels the copied file has."""

HISTORY = HistoryOptions(size=100, ttl_s=3600.0, meta_ttl_s=86400.0, durability="disk")


async def fill(folder: Path, channels: int) -> None:
    """Makes `history.db` with three publications in each channel, one of them with a key and a number."""
    engine = sqlite_on_file(str(folder), SystemClock())
    await engine.broker.start(Node())
    for start in range(0, channels, 1000):
        await asyncio.gather(
            *(
                engine.broker.publish(f"channel-{number}", Raw(b'{"n":%d}' % number), options)
                for number in range(start, min(start + 1000, channels))
                for options in (
                    PublishOptions(HISTORY),
                    PublishOptions(HISTORY, idempotency_key="k"),
                    PublishOptions(HISTORY, producer="p", seq=1),
                )
            )
        )
    await engine.broker.stop()


def command(*arguments: object) -> list[str]:
    return [str(Path(sys.executable).with_name("beaconfire")), "engine", "copy", *map(str, arguments)]


def run_copy(*arguments: object) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON document of a copy."""
    done = subprocess.run([*command(*arguments), "--json"], capture_output=True, text=True, timeout=600)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def rows(path: Path, query: str) -> Sequence[Any]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    asyncio.run(fill(tmp_path, CHANNELS))
    return tmp_path / "history.db"


@pytest.mark.timeout(900)
def test_a_copy_that_was_killed_is_continued(source: Path, tmp_path: Path) -> None:
    """The second run copies only the rest, and finds no difference. A third run copies nothing."""
    target = tmp_path / "new.db"
    process = subprocess.Popen(command(source, target), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            ((count,),) = rows(target, "SELECT count(*) FROM streams")
        except sqlite3.Error:
            count = 0  # The file does not exist yet.
        if count >= SLICE_CHANNELS:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    assert process.wait() == -signal.SIGKILL
    ((before,),) = rows(target, "SELECT count(*) FROM streams")
    assert SLICE_CHANNELS <= before < CHANNELS
    code, document = run_copy(source, target)
    assert (code, document["equal"], document["differences"]) == (0, True, [])
    assert document["copied"] == {"channels": CHANNELS, "copied": CHANNELS - before, "removed": 0}
    assert document["old"] == document["new"]
    assert document["new"]["publications"] == 3 * CHANNELS
    assert run_copy(source, target)[1]["copied"]["copied"] == 0


@pytest.mark.timeout(900)
def test_a_planted_difference_is_listed(source: Path, tmp_path: Path) -> None:
    """The exit code is 1, and the difference names the channel and the publication."""
    target = tmp_path / "new.db"
    assert run_copy(source, target)[0] == 0
    with closing(sqlite3.connect(target)) as connection, connection:
        connection.execute(
            "UPDATE publications SET data = x'00' WHERE offset = 2 AND stream = "
            "(SELECT id FROM streams WHERE channel = 'channel-77')"
        )
    code, document = run_copy(source, target, "--verify-only")
    assert (code, document["copied"], document["different_channels"]) == (1, None, 1)
    assert document["differences"] == [{"channel": "channel-77", "what": "publication 2: data differ"}]
    assert document["old"]["hash"] != document["new"]["hash"]


def test_a_server_continues_on_the_copy(tmp_path: Path) -> None:
    """The epoch and the offsets go on, and a repeated publish is still suppressed."""
    asyncio.run(fill(tmp_path, 10))
    target = tmp_path / "new.db"
    assert run_copy(tmp_path / "history.db", target)[0] == 0
    ((epoch,),) = rows(target, "SELECT epoch FROM streams WHERE channel = 'channel-3'")
    overrides = {"engine.type": "sqlite", "engine.path": str(target), "channel.durability": "disk"}
    with ServerProcess(tmp_path, PERMISSIVE_CONFIG, overrides) as server:

        def publish(**params: object) -> dict[str, Any]:
            answer = httpx.post(
                f"{server.http}/api/publish",
                json={"channel": "channel-3", "data": {}, **params},
                headers={"X-API-Key": API_KEY},
            )
            result: dict[str, Any] = answer.json()["result"]
            return result

        assert publish(idempotency_key="k")["offset"] == 2
        result = publish()
        assert (result["offset"], result["epoch"]) == (4, epoch)
        done = subprocess.run(
            command(tmp_path / "history.db", target), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2
        assert "is in use by process" in done.stderr


@pytest.mark.parametrize("kind", ["missing source", "same file"])
def test_wrong_files_are_refused(tmp_path: Path, kind: str) -> None:
    """The error names the argument and the remedy. Nothing is created."""
    asyncio.run(fill(tmp_path, 1))
    source = tmp_path / ("history.db" if kind == "same file" else "missing.db")
    before = sorted(tmp_path.iterdir())
    done = subprocess.run(command(source, tmp_path / "history.db"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert ("TARGET" if kind == "same file" else "SOURCE") in done.stderr
    assert sorted(tmp_path.iterdir()) == before
