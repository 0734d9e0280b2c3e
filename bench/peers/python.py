"""Servers in Python, each in its own virtual environment: a folder with a program and its pinned requirements."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from bench.peers.base import INSTALLED, PING_INTERVAL_S, PeerProtocol, Running, describe, pinned_version
from bench.peers.installation import virtual_environment
from bench.peers.text import CAPABILITIES

UVICORN = [
    "uvicorn",
    *("--host", "127.0.0.1", "--backlog", "4096"),
    *("--log-level", "error", "--no-access-log"),
    # The defaults of uvicorn[standard], its installation with Cython-based dependencies (uvicorn.dev).
    *("--loop", "uvloop", "--http", "httptools", "--ws", "websockets-sansio"),
    *("--ws-per-message-deflate", "false"),
    *("--ws-ping-interval", str(PING_INTERVAL_S), "--ws-ping-timeout", str(PING_INTERVAL_S)),
    *("--app-dir", "{folder}", "--port", "{port}", "app:application"),
]
"""The command that serves an `app.py`."""


class PythonPeer:
    """One process, one core. `packages` are the packages that are measured, the most important one first.

    `command` runs in the virtual environment; `{folder}` and `{port}` are replaced.
    """

    capabilities = CAPABILITIES

    def __init__(
        self,
        name: str,
        packages: list[str],
        program: Path,
        protocols: Mapping[str, PeerProtocol],
        command: list[str],
    ) -> None:
        self.name = name
        self.protocols = protocols
        self._requirements = program.with_name("requirements.txt")
        self._program = program
        self._command = command
        versions = " + ".join(f"{package} {pinned_version(self._requirements, package)}" for package in packages)
        self.title = f"{versions} on Python {platform.python_version()}"

    @property
    def configuration(self) -> str:
        return describe(" ".join(self._command).format(folder=".", port="PORT"), self._program)

    def install(self) -> None:
        virtual_environment(self.name, self._requirements)

    def start(self) -> Running:
        return self.launch(Running(), {})

    def launch(self, running: Running, env: Mapping[str, str]) -> Running:
        """Starts the server as a part of `running`."""
        filled = [word.format(folder=self._program.parent, port=running.port) for word in self._command]
        program = INSTALLED / self.name / "bin" / filled[0]
        return running.launch([str(program), *filled[1:]], env=env)
