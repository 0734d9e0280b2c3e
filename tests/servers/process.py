"""The process of a server: starts, answers on a port of its own, and always ends with the tests."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.processes import HeldPort

START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 10.0


class ServerProcess:
    """One server in a folder of its own, which is removed at the end. No other process gets its port meanwhile."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """`{folder}` and `{port}` in the command and in the environment are replaced."""
        self._held = HeldPort()
        self.port = self._held.number
        self._command = command
        self._env = env or {}
        self._folder = tempfile.TemporaryDirectory(prefix="server-")
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was started"
        return self._process.pid

    def start(self) -> None:
        """Returns when the port accepts connections."""
        env = {**os.environ, **{name: self._filled(value) for name, value in self._env.items()}}
        command = [self._filled(part) for part in self._command]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=env)
        deadline_s = time.monotonic() + START_DEADLINE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
            except OSError:
                assert self._process.poll() is None, f"{command[0]} has ended:\n{self.log()}"
                assert time.monotonic() < deadline_s, f"{command[0]} does not accept connections:\n{self.log()}"
                time.sleep(0.01)
            else:
                return

    def _filled(self, text: str) -> str:
        return text.replace("{folder}", str(self.folder)).replace("{port}", str(self.port))

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-5000:]

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal to the server, if it runs."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends the process, and returns when it has ended. Idempotent. Its folder stays."""
        if self._process is None:
            return
        self.send_signal(signal.SIGCONT)
        self.send_signal(number)
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_DEADLINE_S)
        self._process = None

    def close(self) -> None:
        """Ends the process and removes its folder. Idempotent."""
        self.stop(signal.SIGKILL)
        self._held.close()
        self._folder.cleanup()
        atexit.unregister(self.close)
