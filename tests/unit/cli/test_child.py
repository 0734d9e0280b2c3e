"""The program of the processes that the supervisor starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from beaconfire.cli import child
from beaconfire.config import Config
from beaconfire.server.workers import hub_process, worker_process
from beaconfire.server.workers.seat import Seat

HEAVY = (
    "typer",
    "uvicorn",
    "aiohttp",
    "picows",
    "google.protobuf",
    "beaconfire.node.node",
    "beaconfire.transports.http",
)


@pytest.mark.parametrize("slot", [None, 1])
def test_a_seat_decides_which_process_runs(slot: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process loads the present content of the file, and what the command line of the supervisor has set."""
    file = tmp_path / "c.toml"
    file.write_text("[server]\nport = 1\nhost = '127.0.0.1'\n")
    started: list[tuple[str, Config, Seat]] = []

    def run_as(name: str) -> Callable[[Config, Seat], int]:
        def run(config: Config, seat: Seat) -> int:
            started.append((name, config, seat))
            return 7

        return run

    monkeypatch.setattr(hub_process, "run_hub", run_as("hub"))
    monkeypatch.setattr(worker_process, "run_worker", run_as("worker"))
    seat = Seat("n", slot, 2, "/run/b", 5, str(file), {"server.port": "2"})
    assert child.main(seat.encode()) == 7
    ((name, config, given),) = started
    assert name == ("hub" if slot is None else "worker")
    assert (config.server.host, config.server.port, given) == ("127.0.0.1", 2, seat)


def test_invalid_configuration_is_told_like_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each problem with its setting. The exit code is 2."""
    file = tmp_path / "c.toml"
    file.write_text("[server]\nunknown = 1\n")
    assert child.main(Seat("0", 0, 2, "/run/b", 5, str(file)).encode()) == 2
    assert "server.unknown" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["beaconfire.server.workers.hub_process", "beaconfire.server.workers.run"])
def test_hub_and_supervisor_load_nothing_that_only_workers_need(module: str) -> None:
    """So they start faster, and need less memory."""
    check = f"import sys, beaconfire.cli.child, {module}; print([n for n in {HEAVY!r} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
