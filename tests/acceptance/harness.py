"""Real server processes for tests: started on a free port, watched through their log, always ended."""

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
from typing import Any, TypeAlias

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
"""The configuration most acceptance tests run with: the one of the quick start for SDK users."""

SECRET = "secret"
API_KEY = "api_key"


Started: TypeAlias = "queue.Queue[bool]"
"""Gets true when a server listens, or false at the end of its log."""


class ServerProcess:
    """`beaconfire serve` as a child process, as a user would start it.

    `overrides` are dotted settings. The port is free and stays the same over restarts: it is held in between, since
    other tests start servers at the same time. Log lines are kept parsed.
    """

    def __init__(
        self, folder: Path, config: str = REFERENCE_CONFIG, overrides: Mapping[str, str] | None = None
    ) -> None:
        self._file = folder / f"beaconfire-{id(self):x}.toml"
        self._file.write_text(config)
        self._held = HeldPort()
        self.port = self._held.number
        self._overrides = {"server.port": str(self.port), "log.format": "json", **(overrides or {})}
        self._process: subprocess.Popen[str] | None = None
        self.lines: list[dict[str, Any]] = []

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
        return f"http://127.0.0.1:{self.port}"

    @property
    def websocket(self) -> str:
        return f"ws://127.0.0.1:{self.port}/connection/websocket"

    @property
    def plain(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns when the server listens. Raises RuntimeError with its log if it does not."""
        command = [str(Path(sys.executable).with_name("beaconfire")), "serve", "--config", str(self._file)]
        for name, value in self._overrides.items():
            command += ["--set", f"{name}={value}"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("BEACONFIRE_")}
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        started: Started = queue.Queue()  # one for each start: the reader of the last one may be late
        threading.Thread(target=self._read, args=(self._process, started), daemon=True).start()
        try:
            listens = started.get(timeout=START_DEADLINE_S)
        except queue.Empty:
            listens = False
        if not listens:
            self._process.kill()
            raise RuntimeError(f"the server did not start: {self.lines}")

    def _read(self, process: subprocess.Popen[str], started: Started) -> None:
        assert process.stderr is not None
        with process.stderr as stream:
            for text in stream:
                try:
                    line = json.loads(text)
                except ValueError:
                    line = {"action": "unparsed", "text": text}
                self.lines.append(line)
                if line.get("action") == "server_started":
                    started.put(True)
        started.put(False)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """The exit code, once the process has ended by itself."""
        assert self._process is not None
        try:
            return self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise RuntimeError(f"the server did not end within {deadline_s} s: {self.lines[-20:]}") from None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signals and waits. Returns the exit code, negative for a fatal signal."""
        self.send(number)
        return self.wait()

    def resident_bytes(self) -> int:
        """Resident memory of the process, as the kernel counts it."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS")

    def actions(self, action: str) -> list[dict[str, Any]]:
        """Log lines of one action."""
        return [line for line in list(self.lines) if line.get("action") == action]

    def wait_action(self, action: str, deadline_s: float = 10.0, **fields: object) -> dict[str, Any]:
        """The first log line of this action with these fields, once it is there."""
        end_s = time.monotonic() + deadline_s
        while True:
            for line in self.actions(action):
                if all(line.get(name) == value for name, value in fields.items()):
                    return line
            if time.monotonic() > end_s:
                raise AssertionError(f"no log line {action} {fields}; the last ones: {self.lines[-10:]}")
            time.sleep(0.01)
