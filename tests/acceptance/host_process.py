"""Runs Beaconfire under an ASGI server as a child process, in place of `beaconfire serve` with one process."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

from msgspec import Struct

from tests.acceptance.hosts import PREFIX
from tests.acceptance.server_process import START_DEADLINE_S, ServerProcess

_UVICORN: Final = (
    *("uvicorn", "--factory", "--host", "127.0.0.1", "--port", "PORT", "--log-level", "warning"),
    *("--timeout-keep-alive", "60", "--timeout-graceful-shutdown", "2"),
)
"""With the options that `docs/how-to/asgi.md` recommends."""


class Host(Struct, frozen=True):
    """An ASGI server, and the application in which it hosts Beaconfire.

    `command` is the program with its options; `PORT` stands for the port. `factory` is a function of
    `tests.acceptance.hosts`, empty for `beaconfire serve` itself.
    """

    command: tuple[str, ...]
    factory: str = "plain"
    prefix: str = ""


HOSTS: Final[Mapping[str, Host]] = {
    "uvicorn": Host((*_UVICORN, "--ws", "websockets-sansio")),
    "uvicorn-websockets": Host((*_UVICORN, "--ws", "websockets")),
    "granian": Host(
        (
            *("granian", "--interface", "asgi", "--factory", "--host", "127.0.0.1", "--port", "PORT"),
            *("--log-level", "error", "--workers-kill-timeout", "2"),
        )
    ),
    "hypercorn": Host(("hypercorn", "--bind", "127.0.0.1:PORT", "--log-level", "error", "--graceful-timeout", "2")),
    "mounted": Host(_UVICORN, "mounted", PREFIX),
    "middleware": Host(_UVICORN, "behind_middleware"),
    "workers": Host(("beaconfire", "serve", "--workers", "4", "--port", "PORT"), ""),
}


class HostProcess(ServerProcess):
    """One ASGI server with one worker process."""

    def __init__(self, host: Host, folder: Path, config: str = "", overrides: Mapping[str, str] | None = None) -> None:
        super().__init__(folder, config, overrides)
        self._host = host
        self.prefix = host.prefix

    def start(self) -> None:
        super().start()
        self._wait_listening()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        workers = self._workers() if self.is_running else []
        super().__exit__(kind, error, trace)
        for pid in workers:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended with the main process

    def resident_bytes(self) -> int:
        """Resident memory of the process and of its workers."""
        total = 0
        for pid in (self.pid, *self._workers()):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1]) * 1024
        return total

    def _workers(self) -> list[int]:
        return [
            int(pid)
            for children in Path(f"/proc/{self.pid}/task").glob("*/children")
            for pid in children.read_text().split()
        ]

    def _command(self) -> list[str]:
        program, *options = (option.replace("PORT", str(self.port)) for option in self._host.command)
        if not self._host.factory:
            return [str(Path(sys.executable).with_name(program)), *options]
        name = f"tests.acceptance.hosts:{self._host.factory}"
        target = f"{name}()" if program == "hypercorn" else name  # hypercorn calls a factory that is named so
        return [str(Path(sys.executable).with_name(program)), *options, target]

    def _environment(self) -> dict[str, str]:
        settings = {name: value for name, value in self._overrides.items() if name != "server.port"}
        variables = {f"BEACONFIRE_{name.replace('.', '_').upper()}": value for name, value in settings.items()}
        root = str(Path(__file__).parents[2])
        return {**variables, "BEACONFIRE_CONFIG": str(self._file), "PYTHONPATH": root}

    def _wait_listening(self) -> None:
        """The lifespan starts before the server listens."""
        end_s = time.monotonic() + START_DEADLINE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if time.monotonic() > end_s or not self.is_running:
                    raise RuntimeError(f"the server does not listen: {self.log}") from None
                time.sleep(0.02)
