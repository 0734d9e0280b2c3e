"""Runs `beaconfire serve` as a child process on a free port, reads its log, and always ends the process."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.processes import HeldPort

START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 40.0

REFERENCE_CONFIG = """
[server]
host = "127.0.0.1"
port = 8000
[client]
allowed_origins = ["http://localhost:8000"]
insecure = false
allow_anonymous = false
ping_interval = "25s"
pong_timeout = "8s"
user_personal_channel = true
[token]
hmac_secret = "secret"
[api]
keys = ["api_key", "second_key"]
[channel]
presence = true
join_leave = true
force_push_join_leave = true
history_size = 100
history_ttl = "300s"
force_recovery = true
allow_publish_for_subscriber = true
allow_presence_for_subscriber = true
allow_history_for_subscriber = true
[namespaces.small]
force_recovery = true
history_size = 2
history_ttl = "300s"
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
[plain]
lobby = true
[engine]
type = "memory"
"""
"""Clients need a token. This is the configuration of the quick start for SDK users."""

PERMISSIVE_CONFIG = """
[client]
insecure = true
allowed_origins = ["http://good.example", "https://*.good.example"]
[api]
keys = ["api_key"]
insecure = true
[channel]
presence = true
history_size = 100
history_ttl = "300s"
force_recovery = true
[namespaces.bare]
[namespaces.json]
publication_data_format = "json"
[namespaces.watched]
presence = true
join_leave = true
force_push_join_leave = true
[plain]
lobby = true
"""
"""Every client may connect without a token and do everything, so that tests of limits need no permissions."""

SECRET = "secret"
API_KEY = "api_key"


class ServerProcess:
    """`beaconfire serve` as a child process, started as a user starts it.

    The port is free and stays the same after a restart. A socket reserves the port while the server does not run,
    because other tests start servers at the same time.

    Args:
        folder: where the configuration file is written, and the working directory of the process.
        overrides: settings by dotted name, given on the command line.
    """

    def __init__(
        self, folder: Path, config: str = REFERENCE_CONFIG, overrides: Mapping[str, str] | None = None
    ) -> None:
        self.prefix = ""
        """The path at which the server is mounted in another application."""
        self._file = folder / f"beaconfire-{id(self):x}.toml"
        self._file.write_text(config)
        self._held = HeldPort()
        self.port = self._held.number
        self._overrides = {"server.port": str(self.port), "log.format": "json", **(overrides or {})}
        self._process: subprocess.Popen[str] | None = None
        self.log: list[dict[str, Any]] = []
        """The log so far, one dictionary per line. A line that is not JSON has the action `unparsed`."""

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_running:
            self.stop(signal.SIGKILL)
        self._held.close()

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    @property
    def websocket(self) -> str:
        return f"ws://127.0.0.1:{self.port}{self.prefix}/connection/websocket"

    @property
    def plain(self) -> str:
        return f"ws://127.0.0.1:{self.port}{self.prefix}/ws"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the process and returns when the server listens. Raises RuntimeError with the log if it fails."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("BEACONFIRE_")}
        environment = inherited | self._environment()
        self._process = subprocess.Popen(
            self._command(), stderr=subprocess.PIPE, text=True, env=environment, cwd=self._file.parent
        )
        started: queue.Queue[bool] = queue.Queue()  # a new one: the thread of the last start may still write to its own
        threading.Thread(target=self._read_log, args=(self._process, started), daemon=True).start()
        try:
            is_listening = started.get(timeout=START_DEADLINE_S)
        except queue.Empty:
            is_listening = False
        if not is_listening:
            self._process.kill()
            raise RuntimeError(f"the server did not start: {self.log}")

    def _command(self) -> list[str]:
        command = [str(Path(sys.executable).with_name("beaconfire")), "serve", "--config", str(self._file)]
        for name, value in self._overrides.items():
            command += ["--set", f"{name}={value}"]
        return command

    def _environment(self) -> dict[str, str]:
        """Variables that are added to our environment."""
        return {}

    def _read_log(self, process: subprocess.Popen[str], started: queue.Queue[bool]) -> None:
        """Puts true into `started` when the server listens, and false at the end of the log."""
        assert process.stderr is not None
        with process.stderr as stream:
            for text in stream:
                try:
                    line = json.loads(text)
                except ValueError:
                    line = {"action": "unparsed", "text": text}
                self.log.append(line)
                if line.get("action") == "server_started":
                    started.put(True)
        started.put(False)

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait_exit(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """Waits until the process exits. Returns the exit code. Kills the process at the deadline and raises."""
        assert self._process is not None
        try:
            return self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise RuntimeError(f"the server did not exit within {deadline_s} s: {self.log[-20:]}") from None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends the signal and waits until the process exits. Returns the exit code, negative for a fatal signal."""
        self.send_signal(number)
        return self.wait_exit()

    def resident_bytes(self) -> int:
        """Resident memory of the process (VmRSS)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS")

    def log_lines(self, action: str) -> list[dict[str, Any]]:
        """The log lines with this action so far."""
        return [line for line in list(self.log) if line.get("action") == action]

    def wait_log_line(self, action: str, deadline_s: float = 10.0, **fields: object) -> dict[str, Any]:
        """Waits for a log line with this action and these fields. Returns the first one."""
        end_s = time.monotonic() + deadline_s
        while True:
            for line in self.log_lines(action):
                if all(line.get(name) == value for name, value in fields.items()):
                    return line
            if time.monotonic() > end_s:
                raise AssertionError(f"no log line {action} {fields}; the last lines: {self.log[-10:]}")
            time.sleep(0.01)
