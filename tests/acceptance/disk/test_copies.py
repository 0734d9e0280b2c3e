"""Copies of the database: a copy begins new epochs, because the original may have gone on with the old ones.

A client at a position before the fork recovers from the copy. A client at a later position, which the copy does not
have, is told.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.deadlines import run_scenario
from tests.acceptance.disk.api_connection import ApiConnection, read_history
from tests.acceptance.disk.disk_server import DiskServer, assert_intact
from tests.acceptance.json_client import JSONClient

BEFORE, AFTER = 20, 10
"""How many publications the original has at the time of the copy, and how many follow."""


async def publish(port: int, first: int, count: int, prefix: str) -> str:
    """Publishes `prefix` and a number, the offset. Returns the epoch."""
    async with ApiConnection.open(port) as api:
        for offset in range(first, first + count):
            receipt = await api.publish("room", f"{prefix}{offset}")
            assert receipt["offset"] == offset
        return str(receipt["epoch"])


async def recover(port: int, epoch: str, offset: int) -> dict[str, Any]:
    """Subscribes as a client that comes back from this position. Returns the reply."""
    async with JSONClient.connect(port) as client:
        reply = await client.request(subscribe={"channel": "room", "recover": True, "epoch": epoch, "offset": offset})
        subscribed: dict[str, Any] = reply["subscribe"]
        return subscribed


async def assert_forked(port: int, epoch: str) -> None:
    """The copy goes on after `BEFORE` with other publications than the original."""
    fork = await publish(port, BEFORE + 1, AFTER, "copy")
    assert fork != epoch
    for offset in (0, 1, BEFORE - 5, BEFORE):
        reply = await recover(port, epoch, offset)
        assert (reply.get("recovered"), reply["epoch"]) == (True, fork), offset
        expected = [
            f"copy{each}" if each > BEFORE else f"original{each}" for each in range(offset + 1, BEFORE + AFTER + 1)
        ]
        assert [publication["data"] for publication in reply["publications"]] == expected
    for offset in (BEFORE + 1, BEFORE + AFTER):
        reply = await recover(port, epoch, offset)
        assert not reply.get("recovered"), offset
        assert not reply.get("publications"), offset
        assert reply["epoch"] == fork


def back_up(source: Path, target: Path) -> None:
    """Copies the database with the backup interface of SQLite, as tools for backups do."""
    reader, writer = sqlite3.connect(source), sqlite3.connect(target)
    reader.backup(writer)
    writer.close()
    reader.close()


def test_copy_of_a_running_server_begins_new_epochs(tmp_path: Path) -> None:
    """The original keeps its epoch and goes on."""
    path, copy = tmp_path / "history.db", tmp_path / "copy" / "history.db"
    copy.parent.mkdir()
    with DiskServer(tmp_path, path) as server:
        epoch = run_scenario(publish(server.port, 1, BEFORE, "original"))
        back_up(path, copy)
        assert run_scenario(publish(server.port, BEFORE + 1, AFTER, "original")) == epoch
        with DiskServer(copy.parent, copy) as other:
            run_scenario(assert_forked(other.port, epoch))
            assert other.stop() == 0
        reply = run_scenario(recover(server.port, epoch, BEFORE))
        assert (reply["recovered"], reply["epoch"], len(reply["publications"])) == (True, epoch, AFTER)
        assert server.stop() == 0
    assert_intact(path)
    assert_intact(copy)


def test_copy_of_the_file_of_a_stopped_server_begins_new_epochs(tmp_path: Path) -> None:
    """A plain copy of the file is complete if the server has ended."""
    path, copy = tmp_path / "history.db", tmp_path / "copy.db"
    with DiskServer(tmp_path, path) as server:
        epoch = run_scenario(publish(server.port, 1, BEFORE, "original"))
        assert server.stop() == 0
        shutil.copy(path, copy)
        with DiskServer(tmp_path, copy) as other:
            run_scenario(assert_forked(other.port, epoch))
        server.start()
        assert run_scenario(publish(server.port, BEFORE + 1, AFTER, "original")) == epoch


def _overwrite(backup: Path, path: Path) -> None:
    """As `cp` does if the target exists: the file keeps its inode."""
    with path.open("wb") as file:
        file.write(backup.read_bytes())


def _remove_and_copy(backup: Path, path: Path) -> None:
    """The file system may give the inode of the removed file to the new one, and ext4 does so."""
    path.unlink()
    shutil.copy(backup, path)


def _move(backup: Path, path: Path) -> None:
    os.replace(backup, path)


RESTORE: Final[dict[str, Callable[[Path, Path], None]]] = {
    "overwrite": _overwrite,
    "remove and copy": _remove_and_copy,
    "move": _move,
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("how", RESTORE)
def test_restored_backup_begins_new_epochs(tmp_path: Path, how: str, number: signal.Signals) -> None:
    """The backup takes the place of the database, which had gone on after the backup."""
    path, backup = tmp_path / "history.db", tmp_path / "backup.db"
    with DiskServer(tmp_path, path) as server:
        epoch = run_scenario(publish(server.port, 1, BEFORE, "original"))
        back_up(path, backup)
        run_scenario(publish(server.port, BEFORE + 1, AFTER, "original"))
        server.stop(number)
        RESTORE[how](backup, path)
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        server.start()
        run_scenario(assert_forked(server.port, epoch))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_restart_keeps_the_epoch(tmp_path: Path, number: signal.Signals) -> None:
    """The same file is no copy, however the server has ended."""
    with DiskServer(tmp_path, tmp_path / "history.db") as server:
        epoch = run_scenario(publish(server.port, 1, BEFORE, "original"))
        server.stop(number)
        server.start()
        history = run_scenario(read_history(server.port, "room"))
        assert (len(history.publications), history.epoch) == (BEFORE, epoch)
        assert run_scenario(publish(server.port, BEFORE + 1, AFTER, "original")) == epoch
