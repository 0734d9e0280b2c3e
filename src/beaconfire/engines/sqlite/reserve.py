"""Disk space that is kept for the case that the disk is full."""

from __future__ import annotations

import contextlib
import os
from typing import Final

RESERVE_SUFFIX = ".reserve"
RESERVE_BYTES: Final = 4 * 1024 * 1024
"""Room to copy the write-ahead log into the database, which frees the log. See `CHECKPOINT_PAGES`."""


class ReserveFile:
    """A file next to the database that takes `RESERVE_BYTES` of the disk.

    On a full disk SQLite cannot even delete, because it writes its log first. Without the reserve file it can.
    """

    def __init__(self, database: str) -> None:
        self._path = database + RESERVE_SUFFIX

    @property
    def exists(self) -> bool:
        return os.path.exists(self._path)

    def create(self) -> bool:
        """Takes the space, if it is not taken yet. False if the disk has no room for it: then nothing is taken."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        except OSError:
            self.release()
            return False
        finally:
            os.close(descriptor)
        return True

    def release(self) -> None:
        """Gives the space back. Idempotent."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)
