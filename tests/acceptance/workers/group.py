"""`beaconfire serve --workers 4` as a child process, whose processes and run directory the tests can see."""

from __future__ import annotations

import os
from pathlib import Path

from beaconfire.server.workers.status import Status, read_status
from tests.acceptance.server_process import ServerProcess

WORKERS = 4


class WorkerGroup(ServerProcess):
    """The supervisor and its processes. `folder` also holds the run directory, so its path must be short: the path of
    a Unix socket has at most 107 bytes."""

    def __init__(self, folder: Path, config: str, overrides: dict[str, str] | None = None) -> None:
        super().__init__(folder, config, {"server.workers": str(WORKERS), **(overrides or {})})
        self.folder = folder

    def _environment(self) -> dict[str, str]:
        return {"TMPDIR": str(self.folder)}

    @property
    def config_file(self) -> Path:
        return self._file

    def run_directories(self) -> list[Path]:
        return list(self.folder.glob("beaconfire-*/"))

    def status(self) -> Status:
        """The content of the status file, empty if there is none."""
        directories = [path for path in self.run_directories() if path.is_dir()]
        return read_status(directories[0] / "status.json") if directories else Status()

    def pids(self) -> dict[str, int]:
        """The pid of each process that serves, by name: `hub` or the number of the slot."""
        return {process.name: process.pid for process in self.status().processes if process.state == "ready"}


def is_alive(pid: int) -> bool:
    """Whether the process runs. A process that has ended and that nobody has waited for does not run."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"
