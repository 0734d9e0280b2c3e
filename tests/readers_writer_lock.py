"""A readers-writer lock between processes, for tests that run in parallel and tests that run alone."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TextIO


class ReadersWriterLock:
    """Any number of shared holders, or one exclusive holder.

    A process that waits for exclusive access keeps `entry.lock`, so no other process gets access before it, while the
    shared holders finish. The wait ends, because each test has a timeout, and because the kernel releases the locks of
    a process that died.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` is for the lock files. All processes must use the same one."""
        self._folder = folder
        self._files: list[TextIO] = []

    def acquire(self, exclusive: bool) -> None:
        """Returns when the process has access. Does nothing if it has access already."""
        if self._files:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        entry, access = self._files = [(self._folder / name).open("w") for name in ("entry.lock", "access.lock")]
        fcntl.flock(entry, fcntl.LOCK_EX)
        fcntl.flock(access, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        if not exclusive:
            fcntl.flock(entry, fcntl.LOCK_UN)

    def release(self) -> None:
        """Idempotent."""
        for file in self._files:
            file.close()
        self._files = []
