"""Starts, measures and ends the programs of a benchmark."""

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
    """A child process. It and all its descendants are ended with the `with` block. The kernel counts CPU and memory.

    Args:
        stdin: whether `write_line` will be used.
        env: variables that are added to our environment, from which Beaconfire's settings are removed.
        stdout: whether `read_line` will be used. If not, the output goes to our standard error: a program blocks
            when nothing reads its pipe and the pipe is full.
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
        """The next line of its output. Raises RuntimeError if the process ended."""
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
        """The process and its descendants, parents first; empty after its end."""
        return [] if self.process.poll() is not None else _descendants(self.process.pid)

    def cpu_s(self) -> float:
        """CPU time used so far by all its running processes, including threads that have ended."""
        return sum(_cpu_s(pid) for pid in self.pids())

    def resident_bytes(self) -> int:
        """Resident memory of all its running processes. Pages that several processes share are counted for each."""
        return sum(_resident_bytes(pid) for pid in self.pids())


class HeldPort:
    """A free port of 127.0.0.1, reserved until `close`, for a program that is started with a port number.

    A socket that is bound and never listens reserves the port: the kernel does not give the port to a program that
    asks for any free port. A program that names the port can listen, because both sockets allow reuse (SO_REUSEADDR).
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
        """Frees the port. Can be called again."""
        self._socket.close()


def wait_listening(port: int, process: subprocess.Popen[str], deadline_s: float = 20.0) -> None:
    """Returns when the port accepts connections. Raises RuntimeError if the process ends or the deadline passes."""
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
    """Raises the limit on open files, and so on connections, to the maximum for this process and its children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _descendants(pid: int) -> list[int]:
    """The process and its descendants. Processes that end meanwhile are left out."""
    pids = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                pids += _descendants(int(child))
    except (FileNotFoundError, ProcessLookupError):
        pass
    return pids


def _cpu_s(pid: int) -> float:
    # The id of the process's CPU clock, computed as clock_getcpuclockid(3) does. The clock counts nanoseconds
    # (/proc/<pid>/stat counts hundredths of a second) and includes threads that have ended.
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
    """Kills a process and waits until it has ended. It need not be a child of ours."""
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
        pass  # it ended by itself, and its parent has waited for it
    finally:
        os.close(handle)
