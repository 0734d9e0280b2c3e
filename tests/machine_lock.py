"""A readers-writer lock over all test processes: tests share the machine, or one test has the machine for itself."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TextIO


class MachineLock:
    """One process's view of the lock. A test holds it shared or exclusively; exclusive tests in a row keep holding it.

    A process that wants the lock exclusively holds the entry lock while it waits: no further test begins, and the
    running tests finish. The wait ends, because each test has its timeout, and the kernel releases the locks of a
    process that died.
    """

    def __init__(self, folder: Path) -> None:
        """All processes give the same folder, which contains the lock files."""
        self._folder = folder
        self._locks: list[TextIO] = []

    def acquire(self, exclusive: bool) -> None:
        """Returns when the test may run. Does nothing if this process holds the lock already."""
        if self._locks:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        entry, machine = self._locks = [(self._folder / name).open("w") for name in ("entry.lock", "machine.lock")]
        fcntl.flock(entry, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        if not exclusive:
            fcntl.flock(entry, fcntl.LOCK_UN)

    def release(self) -> None:
        for lock in self._locks:
            lock.close()
        self._locks = []
