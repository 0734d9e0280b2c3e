"""The facts of a report besides the samples: the machine, and the configuration of each peer."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Self

import msgspec


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where and when the samples were measured, and with which command."""

    cpu: str
    cores: int
    kernel: str
    python: str
    date: str
    command: str

    @classmethod
    def here(cls, command: str) -> Self:
        """This machine, today. `cores` is the number of cores that this process may use."""
        return cls(
            cpu=_cpu_model(),
            cores=len(os.sched_getaffinity(0)),
            kernel=f"{platform.system()} {platform.release()}",
            python=f"{platform.python_implementation()} {platform.python_version()}",
            date=time.strftime("%Y-%m-%d"),
            command=command,
        )


class PeerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The title of a peer with its version, its configuration as text, and its capabilities.

    If `capabilities` is empty, they are unknown, and a missing scenario counts as not measured.
    """

    title: str
    configuration: str = ""
    capabilities: frozenset[str] = frozenset()


class About(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `about.json`, in the folder of the samples. Peers by their names in samples."""

    machine: Machine | None = None
    peers: dict[str, PeerFacts] = {}

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self, order="sorted")) + b"\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Empty if there is no such file. Raises ValueError with the name of the file if its content is invalid."""
        if not path.exists():
            return cls()
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}: {error}") from error


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
