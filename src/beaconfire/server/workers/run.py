"""Starts the supervisor."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Final

from beaconfire.config import Config
from beaconfire.engines.mirror import RESTORE_S_MAX
from beaconfire.observe import logs
from beaconfire.server.announce import announce
from beaconfire.server.process_setup import prepare
from beaconfire.server.sockets import base_url
from beaconfire.server.workers.listeners import open_listeners
from beaconfire.server.workers.supervisor import START_TIMEOUT_S, STOP_MARGIN_S, Supervisor, SupervisorOptions

CHILD_PROGRAM: Final = "beaconfire.cli.child"


def supervise(config: Config, config_file: str | None, overrides: Mapping[str, str]) -> int:
    """Runs the server as `server.workers` processes until a signal has ended them. Returns the exit code.

    Each process loads the configuration itself, from `config_file` and `overrides` and the environment, so that a
    process that starts later has the present content of the file.
    """
    prepare(config, "supervisor")
    listeners = open_listeners(config.server, config.server.workers)
    addresses = [base_url(sock, tls=bool(config.server.tls_cert)) for sock in listeners[0]]
    options = SupervisorOptions(
        [sys.executable, "-m", CHILD_PROGRAM],
        config_file,
        dict(overrides),
        float(config.server.shutdown_timeout) + STOP_MARGIN_S,
        START_TIMEOUT_S + (RESTORE_S_MAX if config.migration.to != "none" else 0.0),
    )

    async def run() -> int:
        supervisor = Supervisor(options, listeners, logs.get_logger())
        return await supervisor.run(lambda: announce(config, "", config.engine.type, addresses))

    return asyncio.run(run())
