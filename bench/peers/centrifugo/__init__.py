"""Centrifugo, built from its released Go module with nothing changed."""

from __future__ import annotations

from pathlib import Path

from bench.peers.base import CAPABILITIES, INSTALLED, Running, described, pinned_version
from bench.peers.centrifuge import DIALECTS
from bench.peers.installing import go_program

HERE = Path(__file__).parent
CONFIG = HERE / "centrifugo.toml"
MODULE = "github.com/centrifugal/centrifugo/v6"


class Centrifugo:
    """One process, memory engine, as many cores as Go takes."""

    name = "centrifugo"
    title = f"Centrifugo {pinned_version(HERE / 'go.mod', MODULE)}"
    capabilities = CAPABILITIES
    dialects = DIALECTS

    @property
    def configuration(self) -> str:
        return described(f"centrifugo --config {CONFIG.name}", CONFIG)

    def install(self) -> None:
        go_program(self.name, HERE, MODULE)

    def start(self) -> Running:
        running = Running()
        program = INSTALLED / self.name / self.name
        return running.launch([str(program), "--config", str(CONFIG), "--http_server.port", str(running.port)])
