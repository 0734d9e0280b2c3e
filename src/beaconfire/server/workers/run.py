"""Starts the supervisor, or one of its child processes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping

from beaconfire.config import Config
from beaconfire.engines.mirror import RESTORE_S_MAX
from beaconfire.observe import logs
from beaconfire.server.process import announce, prepare
from beaconfire.server.sockets import base_url
from beaconfire.server.workers.hub_process import run_hub
from beaconfire.server.workers.listeners import open_listeners
from beaconfire.server.workers.seat import Seat
from beaconfire.server.workers.supervisor import START_TIMEOUT_S, STOP_MARGIN_S, Supervisor, SupervisorOptions
from beaconfire.server.workers.worker_process import run_worker


def run_child(config: Config, seat: Seat) -> int:
    """Runs the hub or a worker. Returns the exit code."""
    return run_hub(config, seat) if seat.slot is None else run_worker(config, seat)


def supervise(config: Config, config_file: str | None, overrides: Mapping[str, str]) -> int:
    """Runs the server as `server.workers` processes until a signal has ended them. Returns the exit code.

    Each process loads the configuration itself, from `config_file` and `overrides` and the environment, so that a
    process that starts later has the present content of the file.
    """
    prepare(config, "supervisor")
    listeners = open_listeners(config.server, config.server.workers)
    addresses = [base_url(sock, tls=bool(config.server.tls_cert)) for sock in listeners[0]]
    command = [sys.executable, "-m", "beaconfire", "serve"]
    if config_file is not None:
        command += ["--config", config_file]
    for name, value in overrides.items():
        command += ["--set", f"{name}={value}"]
    options = SupervisorOptions(
        [*command, "--seat"],
        float(config.server.shutdown_timeout) + STOP_MARGIN_S,
        START_TIMEOUT_S + (RESTORE_S_MAX if config.migration.to != "none" else 0.0),
    )

    async def run() -> int:
        supervisor = Supervisor(options, listeners, logs.get_logger())
        return await supervisor.run(lambda: announce(config, "", config.engine.type, addresses))

    return asyncio.run(run())
