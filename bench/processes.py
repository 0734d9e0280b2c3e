"""The programs of a benchmark: started, measured and ended."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "bench"


class Program:
    """A child process that is always ended, with all that it started. CPU and memory are as the kernel counts them.

    Args:
        stdin: whether `write_line` is going to be used.
        env: what its environment has beside ours, of which settings of Beaconfire are left out.
        stdout: whether `read_line` is going to be used. Otherwise what it prints goes where our errors go:
            nobody would read the pipe, and a program that fills one stops.
    """

    def __init__(
        self, command: list[str], stdin: bool = False, env: Mapping[str, str] | None = None, stdout: bool = True
    ) -> None:
        allow_many_files()
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("BEACONFIRE_")}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE if stdout else 2,
            text=True,
            env=inherited | dict(env or {}),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in self.pids():
            _end(pid)
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

    def pids(self) -> list[int]:
        """Itself, its children and theirs, parents first; empty once it has ended."""
        return [] if self.process.poll() is not None else _descent(self.process.pid)

    def cpu_s(self) -> float:
        """CPU time used so far by all its living processes, threads that have ended included."""
        return sum(_cpu_s(pid) for pid in self.pids())

    def resident_bytes(self) -> int:
        """Resident memory of all its living processes; pages that several of them share count in each."""
        return sum(_resident_bytes(pid) for pid in self.pids())


class HeldPort:
    """A free port of 127.0.0.1 for a program that is told its port, kept until `close`, also while nothing listens.

    A socket that is bound and never listens keeps it: the kernel gives the port to nobody who asks for any port, while
    a program that names the port can listen, because both sides allow reuse (SO_REUSEADDR), as servers do.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the port up. May be called again."""
        self._socket.close()


def wait_listening(port: int, process: subprocess.Popen[str], deadline_s: float = 20.0) -> None:
    """Returns when something listens. Raises RuntimeError if the process ends before, or does not come to it."""
    end_s = time.monotonic() + deadline_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end_s or process.poll() is not None:
                raise RuntimeError(f"the server did not start: {process.args!r}") from None
            time.sleep(0.05)


def allow_many_files() -> None:
    """Lets this process and its children open as many files, and so connections, as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _descent(pid: int) -> list[int]:
    """A process, its children and theirs. Who ends meanwhile is left out."""
    pids = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                pids += _descent(int(child))
    except (FileNotFoundError, ProcessLookupError):
        pass
    return pids


def _cpu_s(pid: int) -> float:
    # The number of a process's CPU clock, as clock_getcpuclockid(3) makes it: exact to the nanosecond where
    # /proc/<pid>/stat counts hundredths, and it keeps the time of threads that have ended, unlike their files there.
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _resident_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))


def _end(pid: int) -> None:
    """Kills a process, which need not be a child of ours, and waits until it has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        ended.poll()
    except ProcessLookupError:
        pass  # it ended by itself, and was waited for
    finally:
        os.close(handle)
