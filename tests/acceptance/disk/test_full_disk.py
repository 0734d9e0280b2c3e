"""A disk that becomes full, and has room again: because a file is removed, or only because publications expire."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.deadlines import run_scenario
from tests.acceptance.disk.api_connection import ApiConnection, read_history
from tests.acceptance.disk.disk_server import DiskServer, assert_intact
from tests.acceptance.disk.publishers import Record, publishing
from tests.acceptance.disk.small_disk import SmallDisk
from tests.acceptance.disk.trouble import assert_not_ready, assert_refuses, other_channels, wait_healed
from tests.acceptance.server_state import http_request, megabytes

CHANNELS = ["room0", "room1"]
PUBLISHERS = 8
PADDING = "." * 2000
FILLER_BYTES = megabytes(2)
TTL_S = 6
DEADLINE_S = 100.0
REFUSALS = 1000
"""In about a second. Twice a second the server tries to make room."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", megabytes(8)) as disk:
        yield disk


def start_on(disk: SmallDisk, folder: Path, overrides: dict[str, str] | None = None) -> DiskServer:
    return DiskServer(folder, disk.folder / "history.db", overrides, launcher=disk.launcher)


def fill(disk: SmallDisk) -> Path:
    """Another program's file."""
    filler = disk.outside(disk.folder / "filler")
    filler.write_bytes(b"." * FILLER_BYTES)
    return filler


async def publish_until_full(server: DiskServer, record: Record) -> None:
    """Publishes large publications until nothing has room any more. Before, some may be refused while SQLite copies its
    log into the file, which makes room."""
    async with publishing(server.port, CHANNELS, record, PUBLISHERS, PADDING, repeat=False):
        await record.wait_refused(REFUSALS)


def assert_full(record: Record) -> None:
    assert {error["code"] for error in record.refused} == {100}
    assert len(record.receipts) > 100


def test_full_disk_refuses_durable_publications_and_nothing_else(disk: SmallDisk, tmp_path: Path) -> None:
    """While the disk is full, history can be read, other channels work, and readiness is red. When a file is removed,
    everything works again by itself, and everything acknowledged is there."""
    filler, record = fill(disk), Record()

    async def scenario(server: DiskServer) -> None:
        async with other_channels(server) as others:
            await publish_until_full(server, record)
            assert_full(record)
            await assert_refuses(server, CHANNELS[0], "storage_full")
            await others.assert_work()
            await assert_not_ready(server)
            await record.check(server.port, CHANNELS)
            filler.unlink()
            record.sent.add("healed")
            await wait_healed(server, CHANNELS[0])
            await others.assert_work()
            await assert_all_there(server, record)

    with start_on(disk, tmp_path) as server:
        run_scenario(scenario(server), DEADLINE_S)
        assert server.stop() == 0
    assert_intact(disk.outside(server.database))


async def assert_all_there(server: DiskServer, record: Record) -> None:
    """Like `Record.check`, but there may be several publications of `wait_healed`."""
    for channel in CHANNELS:
        publications, epoch = await read_history(server.port, channel)
        assert [offset for offset, _ in publications] == list(range(1, len(publications) + 1))
        stored = dict(publications)
        receipts = {data: receipt for data, receipt in record.receipts.items() if receipt.channel == channel}
        assert all(receipt.epoch == epoch for receipt in receipts.values())
        assert [data for data, receipt in receipts.items() if stored.get(receipt.offset) != data] == []


def test_retention_alone_frees_a_full_disk(disk: SmallDisk, tmp_path: Path) -> None:
    """Nothing but the expiry of publications makes room, again and again, while publishers go on."""
    record = Record()

    async def scenario(server: DiskServer) -> None:
        for _ in range(2):
            async with publishing(server.port, CHANNELS, record, PUBLISHERS, PADDING, repeat=False):
                await record.wait_refused(REFUSALS)
                await record.wait_acknowledged(1000, 4.0 * TTL_S)
        await wait_healed(server, CHANNELS[0])
        async with ApiConnection.open(server.port) as api:
            receipt = await api.publish(CHANNELS[1], "last")
        publications, epoch = await read_history(server.port, CHANNELS[1])
        assert (publications[-1], epoch) == ((receipt["offset"], "last"), receipt["epoch"])
        offsets = [offset for offset, _ in publications]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))

    with start_on(disk, tmp_path, {"channel.history_ttl": f"{TTL_S}s"}) as server:
        run_scenario(scenario(server), DEADLINE_S)
        assert server.stop() == 0
    assert_intact(disk.outside(server.database))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_server_starts_on_a_full_disk(disk: SmallDisk, tmp_path: Path, number: signal.Signals) -> None:
    """A server that was stopped or killed while the disk was full starts again, serves history, and heals later."""
    filler, record = fill(disk), Record()

    async def before_restart(server: DiskServer) -> None:
        await publish_until_full(server, record)
        assert_full(record)

    async def after_restart(server: DiskServer) -> None:
        await record.check(server.port, CHANNELS)
        status, _ = await http_request(server, "/health/live")
        assert status == 200
        filler.unlink()
        more.unlink()
        await wait_healed(server, CHANNELS[0])
        await assert_all_there(server, record)

    with start_on(disk, tmp_path) as server:
        run_scenario(before_restart(server), DEADLINE_S)
        server.stop(number)
        more = fill_up(disk)
        server.start()
        run_scenario(after_restart(server), DEADLINE_S)
        assert server.stop() == 0
    assert_intact(disk.outside(server.database))


def fill_up(disk: SmallDisk) -> Path:
    """Another program takes all space that is left."""
    path = disk.outside(disk.folder / "more")
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"." * 65536)
        except OSError:
            return path
