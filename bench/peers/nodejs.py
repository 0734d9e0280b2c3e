"""Servers on Node.js: a folder with `server.js`, `package.json` and its lock file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from subprocess import run

from bench.peers.base import INSTALLED, PeerProtocol, Running, describe, pinned_version
from bench.peers.installation import node_packages
from bench.peers.text import CAPABILITIES


class NodePeer:
    """One process, one core. `package` is the package that is measured."""

    capabilities = CAPABILITIES

    def __init__(self, name: str, package: str, folder: Path, protocols: Mapping[str, PeerProtocol]) -> None:
        self.name = name
        self.protocols = protocols
        self._folder = folder
        self._package = package

    @cached_property
    def title(self) -> str:
        node = run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
        version = pinned_version(self._folder / "package.json", self._package)
        return f"{self._package} {version} on Node {node.removeprefix('v')}"

    @property
    def configuration(self) -> str:
        return describe("NODE_ENV=production node server.js PORT", self._folder / "server.js")

    def install(self) -> None:
        node_packages(self.name, self._folder)

    def start(self) -> Running:
        running = Running()
        server = INSTALLED / self.name / "server.js"
        return running.launch(["node", str(server), str(running.port)], env={"NODE_ENV": "production"})
