"""Go's net/http with gorilla/websocket: the chat server of its tutorials, with rooms."""

from __future__ import annotations

from pathlib import Path

from bench.peers import text
from bench.peers.base import INSTALLED, Running, describe, pinned_version
from bench.peers.installation import go_program

HERE = Path(__file__).parent


class GoGorilla:
    """One process, as many cores as Go uses; one goroutine owns the rooms."""

    name = "go-gorilla"
    title = f"Go net/http + gorilla/websocket {pinned_version(HERE / 'go.mod', 'github.com/gorilla/websocket')}"
    capabilities = text.CAPABILITIES
    protocols = text.PROTOCOLS

    @property
    def configuration(self) -> str:
        return describe("go-gorilla 127.0.0.1:PORT", HERE / "main.go")

    def install(self) -> None:
        go_program(self.name, HERE)

    def start(self) -> Running:
        running = Running()
        return running.launch([str(INSTALLED / self.name / self.name), f"127.0.0.1:{running.port}"])
