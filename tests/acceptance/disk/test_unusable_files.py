"""Files that the engine must not use: the server ends with code 2, says what to do, and leaves them as they are."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.deadlines import run_scenario
from tests.acceptance.disk.api_connection import ApiConnection, read_history
from tests.acceptance.disk.disk_server import CONFIG, DiskServer
from tests.acceptance.test_serve_command import BEACONFIRE, clean_environment

PUBLICATIONS = 300
PAGE_BYTES = 4096


async def publish(port: int, channel: str = "room", count: int = PUBLICATIONS) -> None:
    async with ApiConnection.open(port) as api:
        for number in range(count):
            await api.publish(channel, {"number": number, "padding": "." * 200})


def make_database(folder: Path) -> Path:
    """A file with publications that was closed."""
    path = folder / "history.db"
    with DiskServer(folder, path) as server:
        run_scenario(publish(server.port))
        assert server.stop() == 0
    return path


def damage_header(folder: Path) -> Path:
    path = make_database(folder)
    _overwrite(path, 0, b"\xa5" * 100)
    return path


def damage_page(folder: Path) -> Path:
    path = make_database(folder)
    _overwrite(path, path.stat().st_size // PAGE_BYTES // 2 * PAGE_BYTES, b"\xa5" * PAGE_BYTES)
    return path


def make_text(folder: Path) -> Path:
    path = folder / "notes.txt"
    path.write_text("Not a database, but long enough for a header of SQLite.\n" * 50)
    return path


def make_foreign_database(folder: Path) -> Path:
    path = folder / "foreign.db"
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE orders (id INTEGER PRIMARY KEY); INSERT INTO orders VALUES (1)")
    connection.close()
    return path


def make_foreign_log(folder: Path) -> Path:
    """The database of another program that was killed: commits are in its write-ahead log."""
    source, path = folder / "source.db", folder / "foreign.db"
    connection = sqlite3.connect(source)
    connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE orders (id INTEGER)")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.executescript("INSERT INTO orders VALUES (1)")
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{source}{suffix}", f"{path}{suffix}")
    connection.close()
    return path


def make_later_version(folder: Path) -> Path:
    path = make_database(folder)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    return path


def make_folder(folder: Path) -> Path:
    path = folder / "data"
    path.mkdir()
    return path


def make_read_only(folder: Path) -> Path:
    path = make_database(folder)
    path.chmod(0o400)
    return path


def make_read_only_folder(folder: Path) -> Path:
    inner = folder / "data"
    inner.mkdir()
    path = make_database(inner)
    inner.chmod(0o500)
    return path


UNUSABLE: Final[dict[str, tuple[Callable[[Path], Path], str]]] = {
    "damaged header": (damage_header, "is not a SQLite database: set engine.path to another file"),
    "damaged page": (damage_page, "is damaged"),
    "text file": (make_text, "is not a SQLite database: set engine.path to another file"),
    "database of another program": (make_foreign_database, "is a database of another program: set engine.path"),
    "database of a killed program": (make_foreign_log, "is a database of another program: set engine.path"),
    "later version": (make_later_version, "was written by a later version of Beaconfire"),
    "folder": (make_folder, "check that it is a file"),
    "read-only file": (make_read_only, "cannot be written: check the permissions"),
    "read-only folder": (
        make_read_only_folder,
        "cannot be written: check the permissions of the file and of its folder",
    ),
    "missing folder": (lambda folder: folder / "missing" / "history.db", "Check that the folder exists"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_file_ends_the_server_with_code_2_and_stays_as_it_is(tmp_path: Path, case: str) -> None:
    """The message has the setting, the path and the remedy."""
    make, remedy = UNUSABLE[case]
    path = make(tmp_path)
    before = _contents(path)
    done = serve(tmp_path, path)
    assert (done.returncode, "engine.path" in done.stderr) == (2, True), done.stderr
    message = " ".join(done.stderr.split())
    assert str(path) in message
    assert remedy in message
    assert _contents(path) == before


def test_second_server_on_a_file_ends_with_code_2_and_names_the_first(tmp_path: Path) -> None:
    """Two processes would both number the publications. The first server is not disturbed, whatever way the second one
    reaches the file."""
    path, link = tmp_path / "history.db", tmp_path / "link.db"
    link.symlink_to(path)
    with DiskServer(tmp_path, path) as server:
        run_scenario(publish(server.port))
        for each in (path, link):
            done = serve(tmp_path, each)
            assert done.returncode == 2, done.stderr
            assert f"is in use by process {server.pid}" in " ".join(done.stderr.split())
        run_scenario(publish(server.port, count=1))


def test_lock_file_of_a_dead_process_does_not_matter(tmp_path: Path) -> None:
    """The kernel ends a lock with its process. The file that remains has no meaning."""
    path = tmp_path / "history.db"
    with DiskServer(tmp_path, path) as server:
        run_scenario(publish(server.port))
        server.stop(signal.SIGKILL)
        assert str(server.pid) in Path(f"{path}.lock").read_text()
        server.start()
        assert len(run_scenario(read_history(server.port, "room")).publications) == PUBLICATIONS


def serve(folder: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """Runs a server that ends at once. Permissions count, also for root."""
    config = folder / "beaconfire.toml"
    config.write_text(CONFIG)
    launcher = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"] if os.geteuid() == 0 else []
    command = [*launcher, BEACONFIRE, "serve", "--config", str(config), "--port", "0"]
    return subprocess.run(
        [*command, "--set", f"engine.path={path}"],
        env=clean_environment() | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def _overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def _contents(path: Path) -> dict[str, bytes]:
    """The contents of the file and of the files that SQLite puts next to it; of a folder, the names in it."""
    if path.is_dir():
        return dict.fromkeys(os.listdir(path), b"")
    return {suffix: each.read_bytes() for suffix in ("", "-wal") if (each := Path(f"{path}{suffix}")).is_file()}
