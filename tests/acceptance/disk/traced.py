"""Runs a server under strace, and reads from the trace when publications were written, synced and acknowledged."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

import pytest

MARK: Final = re.compile(r"mark-\d{7}")
"""Marks are part of the data of publications. One write may have several marks: those that the page has already too."""

_CALLS: Final = "fdatasync,fsync,pwrite64,write,sendto,sendmsg,writev"
_LINE: Final = re.compile(
    r"(?P<pid>\d+) +(?:(?P<call>\w+)\((?P<file>\d+<.*?>)(?=[,) ])(?P<rest>.*)|<\.\.\. (?P<resumed>\w+) resumed>.*)"
)
_CLIENT_PORT: Final = re.compile(r"<TCP:\[127\.0\.0\.1:\d+->127\.0\.0\.1:(\d+)\]>")
_FINISH_S: Final = 20.0

Kind: TypeAlias = Literal["write", "sync", "response"]


class Step(NamedTuple):
    """One system call. `marks` are those in a write to the write-ahead log. `port` is that of the client to which a
    response goes. A sync stands at its end, everything else at its beginning."""

    kind: Kind
    marks: frozenset[str] = frozenset()
    port: int = 0


def strace(trace: Path) -> list[str]:
    """The command that executes a server under strace: strace stays in the background, and stops the server only at
    the calls of the trace."""
    program = shutil.which("strace")
    if program is None:
        pytest.fail("strace is missing: run scripts/services")
    options = ["--daemonize", "--seccomp-bpf", "--follow-forks", "--quiet=attach,personality", "--decode-fds=all"]
    return [program, *options, "--string-limit=5000", f"--trace={_CALLS}", f"--output={trace}"]


def read_steps(trace: Path, pid: int) -> list[Step]:
    """The steps in their order. Waits until strace has seen the end of the process."""
    end_s = time.monotonic() + _FINISH_S
    while not re.search(rf"^{pid} .*\+\+\+ (exited|killed)", text := trace.read_text(errors="replace"), re.MULTILINE):
        assert time.monotonic() < end_s, (
            f"strace has not finished; may this user trace processes (CAP_SYS_PTRACE)? {text[-500:]}"
        )
        time.sleep(0.05)
    return list(_steps(text))


def _steps(text: str) -> Iterator[Step]:
    syncing: set[str] = set()
    """The threads in an unfinished sync of the write-ahead log."""
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        pid, call, file = match["pid"], match["call"], match["file"] or ""
        if match["resumed"] in ("fdatasync", "fsync"):
            if pid in syncing and line.endswith("= 0"):
                yield Step("sync")
            syncing.discard(pid)
        elif "-wal>" in file:
            if call in ("fdatasync", "fsync"):
                if match["rest"].endswith("<unfinished ...>"):
                    syncing.add(pid)
                elif match["rest"].endswith("= 0"):
                    yield Step("sync")
            else:
                yield Step("write", frozenset(MARK.findall(match["rest"])))
        elif (client := _CLIENT_PORT.search(file)) and "durability" in match["rest"]:
            yield Step("response", port=int(client[1]))
