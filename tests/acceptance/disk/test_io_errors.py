"""A disk whose reads, writes or syncs fail for a while. A library makes these system calls of the server fail."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.deadlines import run_scenario
from tests.acceptance.disk.disk_server import DiskServer, assert_intact
from tests.acceptance.disk.publishers import Record, publishing
from tests.acceptance.disk.trouble import (
    OtherChannels,
    assert_not_ready,
    assert_refuses,
    other_channels,
    wait_healed,
)

CHANNELS = ["room0", "room1", "room2"]
PUBLISHERS = 12
ROUNDS = 3
SOURCE = Path(__file__).with_name("io_errors.c")


def compile_library(folder: Path) -> Path:
    if shutil.which("cc") is None:
        pytest.fail("cc is missing: run scripts/services")
    library = folder / "io_errors.so"
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


def forget_pages(database: Path) -> None:
    """A commit of another program makes the server read pages again that it has in memory."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'probe'")
    connection.close()


@pytest.mark.parametrize("call", ["sync", "write", "read"])
def test_io_errors_refuse_durable_publications_until_they_end(tmp_path: Path, call: str) -> None:
    """During the errors other channels work and readiness is red. Then everything works again by itself, everything
    acknowledged is there once, and the file is intact."""
    database, trigger, record = tmp_path / "history.db", tmp_path / "fail", Record()
    switch = trigger.with_name(f"fail-{call}")
    environment = {
        "LD_PRELOAD": str(compile_library(tmp_path)),
        "IO_ERRORS_PREFIX": str(database),
        "IO_ERRORS_TRIGGER": str(trigger),
    }

    async def fail_once(server: DiskServer, others: OtherChannels) -> None:
        switch.touch()
        if call == "read":  # now, because any transaction of the server reads the pages again
            forget_pages(database)
        async with publishing(server.port, CHANNELS, record, PUBLISHERS):
            await record.wait_refused()
            await assert_not_ready(server)
            await assert_refuses(server, CHANNELS[0], "unavailable")
            await others.assert_work()
            switch.unlink()
            await wait_healed(server, "healed")
            await record.wait_acknowledged(200)
        await others.assert_work()

    async def scenario(server: DiskServer) -> None:
        for _ in range(ROUNDS):
            record.refused.clear()
            async with publishing(server.port, CHANNELS, record, PUBLISHERS):
                await record.wait_acknowledged(200)
                if call != "read":
                    async with other_channels(server) as others:
                        await fail_once(server, others)
            if call == "read":
                async with other_channels(server) as others:
                    await fail_once(server, others)
            assert {error["code"] for error in record.refused} == {100}
        # SQLite calls a file damaged that it cannot read. So the file counts as a copy, with new epochs.
        await record.check(server.port, CHANNELS, same_epochs=call != "read")

    with DiskServer(tmp_path, database, environment=environment) as server:
        run_scenario(scenario(server), 100.0)
        assert server.stop() == 0
    assert_intact(database)
