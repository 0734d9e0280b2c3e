"""Which tests may run beside each other, over all workers of a run."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TextIO


class Turn:
    """A worker's right to run a test, beside others or alone; quiet tests that follow each other share one.

    A test that must be alone keeps the door lock: no other test begins, and the running ones finish. Waiting ends
    because tests do: each has its timeout, and the kernel unlocks the locks of a worker that died.
    """

    def __init__(self, folder: Path) -> None:
        """All workers give the same folder, in which their lock files are."""
        self._folder = folder
        self._locks: list[TextIO] = []

    def begin(self, alone: bool) -> None:
        """Returns when the test may run. Does nothing in a turn that has not ended."""
        if self._locks:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        door, room = self._locks = [(self._folder / name).open("w") for name in ("door.lock", "room.lock")]
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(door, fcntl.LOCK_UN)

    def end(self) -> None:
        for lock in self._locks:
            lock.close()
        self._locks = []
