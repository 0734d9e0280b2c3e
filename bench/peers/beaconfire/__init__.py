"""Beaconfire, started by `beaconfire serve`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from beaconfire import __version__
from bench.peers.base import CAPABILITIES, Running, describe
from bench.peers.centrifuge import PROTOCOLS

CONFIG = Path(__file__).with_name("beaconfire.toml")


class Beaconfire:
    """One process, memory engine. The version in this checkout, so it is already installed."""

    name = "beaconfire"
    title = f"Beaconfire {__version__}"
    capabilities = CAPABILITIES
    protocols = PROTOCOLS

    @property
    def configuration(self) -> str:
        return describe(f"beaconfire serve --config {CONFIG.name}", CONFIG)

    def install(self) -> None:
        """Nothing to do."""

    def start(self, settings: Mapping[str, str] | None = None) -> Running:
        """`settings` override those of the configuration file, by dotted name."""
        running = Running()
        program = Path(sys.executable).with_name("beaconfire")
        command = [str(program), "serve", "--config", str(CONFIG), "--set", f"server.port={running.port}"]
        for name, value in (settings or {}).items():
            command += ["--set", f"{name}={value}"]
        return running.launch(command)
