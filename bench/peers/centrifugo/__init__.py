"""Centrifugo, built from its released Go module without changes."""

from __future__ import annotations

from pathlib import Path

from bench.peers.base import CAPABILITIES, INSTALLED, Running, describe, pinned_version
from bench.peers.centrifuge import PROTOCOLS
from bench.peers.installation import go_program

HERE = Path(__file__).parent
CONFIG = HERE / "centrifugo.toml"
MODULE = "github.com/centrifugal/centrifugo/v6"


class Centrifugo:
    """One process, memory engine, as many cores as Go uses."""

    name = "centrifugo"
    title = f"Centrifugo {pinned_version(HERE / 'go.mod', MODULE)}"
    capabilities = CAPABILITIES
    protocols = PROTOCOLS

    @property
    def configuration(self) -> str:
        return describe(f"centrifugo --config {CONFIG.name}", CONFIG)

    def install(self) -> None:
        go_program(self.name, HERE, MODULE)

    def start(self) -> Running:
        running = Running()
        program = INSTALLED / self.name / self.name
        return running.launch([str(program), "--config", str(CONFIG), "--http_server.port", str(running.port)])
