"""Beaconfire, started by `beaconfire serve`: one process, or several workers."""

from __future__ import annotations

import http.client
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from beaconfire import __version__
from bench.peers.base import CAPABILITIES, Running, describe
from bench.peers.centrifuge import PROTOCOLS

CONFIG = Path(__file__).with_name("beaconfire.toml")
READY_TIMEOUT_S = 20.0


class Beaconfire:
    """Memory engine. The version in this checkout, so it is already installed."""

    capabilities = CAPABILITIES
    protocols = PROTOCOLS

    def __init__(self, workers: int = 1) -> None:
        """With more than one worker, the processes are a supervisor, a hub and the workers."""
        self.name = "beaconfire" if workers == 1 else f"beaconfire-{workers}-workers"
        self.title = f"Beaconfire {__version__}" + (f", {workers} workers" if workers > 1 else "")
        self._workers = workers

    @property
    def configuration(self) -> str:
        return describe(f"beaconfire serve --config {CONFIG.name}{self._option}", CONFIG)

    @property
    def _option(self) -> str:
        return f" --workers {self._workers}" if self._workers > 1 else ""

    def install(self) -> None:
        """Nothing to do."""

    def start(self, settings: Mapping[str, str] | None = None) -> Running:
        """`settings` override those of the configuration file, by dotted name."""
        running = Running()
        program = Path(sys.executable).with_name("beaconfire")
        command = [str(program), "serve", "--config", str(CONFIG), "--set", f"server.port={running.port}"]
        for name, value in (settings or {}).items():
            command += ["--set", f"{name}={value}"]
        # Workers leave their folder behind if all processes are killed.
        running.launch([*command, *self._option.split()], env={"TMPDIR": str(running.hold_folder())})
        _wait_ready(running)
        return running


def _wait_ready(running: Running) -> None:
    """Returns when all processes serve. Raises RuntimeError, and then all are ended.

    A worker is ready before the others have started, so each must be up in the metrics.
    """
    end_s = time.monotonic() + READY_TIMEOUT_S
    while not (_get(running, "/health/ready") and _all_up(_get(running, "/metrics"))):
        if time.monotonic() > end_s:
            running.__exit__(None, None, None)
            raise RuntimeError("the server is not ready")
        time.sleep(0.05)


def _get(running: Running, path: str) -> str:
    """The body of the response; empty if there is none, or if it has an error status."""
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=READY_TIMEOUT_S)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.read().decode() if response.status == 200 else ""
    except OSError:
        return ""


def _all_up(metrics: str) -> bool:
    """A server with one process has no such metric."""
    up = [line for line in metrics.splitlines() if line.startswith("beaconfire_worker_up{")]
    return bool(metrics) and all(line.endswith(" 1") for line in up)
