"""The status of all processes, which the supervisor writes and every worker reads for metrics and readiness."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from beaconfire.server.workers.seat import State

CRASH_LOOP: Final = 3
"""With this many short lives in a row, a process counts as failing: readiness turns red."""


class ProcessStatus(Struct, frozen=True):
    """One process. `name` is `hub` or the number of the worker's slot."""

    name: str
    pid: int
    state: State


class SlotStatus(Struct, frozen=True):
    """One slot, or the hub. `restarts` counts the processes after the first one that were started because one had
    ended. `failures` are short lives in a row, and `problem` says how the last one ended."""

    name: str
    restarts: int = 0
    failures: int = 0
    problem: str = ""


class Status(Struct, frozen=True):
    """What the supervisor knows."""

    processes: tuple[ProcessStatus, ...] = ()
    slots: tuple[SlotStatus, ...] = ()

    def problem(self) -> str | None:
        """The processes that end again and again, or None."""
        found = [
            f"{slot.name} has ended {slot.failures} times soon after its start: {slot.problem}"
            for slot in self.slots
            if slot.failures >= CRASH_LOOP
        ]
        return "; ".join(found) or None


def write_status(path: Path, status: Status) -> None:
    """Replaces the file in one step: a reader finds the old or the new status."""
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(status))
    os.replace(new, path)


def read_status(path: Path) -> Status:
    """Returns an empty status if there is no file: the supervisor starts or ends."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except FileNotFoundError:
        return Status()
