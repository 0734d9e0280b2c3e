"""The programs of a benchmark: compiled, started, measured and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache" / "bench"


def compile_c(name: str) -> Path:
    """`bench/<name>.c` as an optimised program; compiled anew only if it has changed. Needs cc."""
    source, program = HERE / f"{name}.c", CACHE / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        CACHE.mkdir(parents=True, exist_ok=True)
        fresh = program.with_suffix(f".{os.getpid()}")  # another benchmark may be running the old one
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(fresh), str(source)], check=True)
        fresh.replace(program)
    return program


class Program:
    """A child process that is always ended. CPU and memory are as the kernel counts them."""

    def __init__(self, command: list[str], stdin: bool = False) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env={key: value for key, value in os.environ.items() if not key.startswith("BEACONFIRE_")},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def read_line(self) -> str:
        """The next line it prints. Raises RuntimeError if it ended instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended with {self.process.wait()}")
        return line.strip()

    def write_line(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def cpu_s(self) -> float:
        """CPU time used so far by all its threads."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9

    def resident_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the kernel does not tell")


class Beaconfire(Program):
    """`beaconfire serve` with a configuration text, on a free port."""

    def __init__(self, config: str, settings: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / "bench.toml"
        file.write_text(config)
        self.port = _free_port()
        command = [str(Path(sys.executable).with_name("beaconfire")), "serve", "--config", str(file)]
        for name, value in {"server.port": str(self.port), "log.level": "error", **settings}.items():
            command += ["--set", f"{name}={value}"]
        super().__init__(command)
        _wait_listening(self.port, self.process)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGKILL)
        super().__exit__(kind, error, trace)
        self._folder.cleanup()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_listening(port: int, process: subprocess.Popen[str], deadline_s: float = 20.0) -> None:
    end_s = time.monotonic() + deadline_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end_s or process.poll() is not None:
                raise RuntimeError("the server did not start") from None
            time.sleep(0.05)
