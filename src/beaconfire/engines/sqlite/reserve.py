"""Disk space that is kept for the case that the disk is full."""

from __future__ import annotations

import contextlib
import os
from typing import Final

RESERVE_SUFFIX = ".reserve"
RESERVE_BYTES: Final = 4 * 1024 * 1024
"""Room to copy the write-ahead log into the database, which frees the log. See `CHECKPOINT_PAGES`."""

START_BYTES: Final = 128 * 1024
"""Room that SQLite needs to open a file."""

ROOM_BYTES: Final = 1024 * 1024
"""Room beyond the reserve without which the disk counts as full. So each time that a full disk has room again,
something can be stored before the disk is full again."""


class ReserveFile:
    """A file next to the database that takes space on the disk.

    On a full disk SQLite cannot even delete, because it writes its log first. Without the reserve file it can.
    """

    def __init__(self, database: str) -> None:
        self._path = database + RESERVE_SUFFIX

    @property
    def bytes(self) -> int:
        """The space that is taken."""
        try:
            return os.stat(self._path).st_size
        except OSError:
            return 0

    def create(self, bytes_min: int = RESERVE_BYTES, room_bytes: int = ROOM_BYTES) -> bool:
        """Takes this much space, unless it is taken already. False if the disk has no room for it and for `room_bytes`
        more: then no more than before is taken."""
        before = self.bytes
        if bytes_min <= before:
            return True
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            os.posix_fallocate(descriptor, 0, bytes_min + room_bytes)
            os.ftruncate(descriptor, bytes_min)
        except OSError:
            os.ftruncate(descriptor, before)
            if not before:
                self.release()
            return False
        finally:
            os.close(descriptor)
        return True

    def release(self) -> None:
        """Gives the space back. Idempotent."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)
