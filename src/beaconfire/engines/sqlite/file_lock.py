"""One process per database file."""

from __future__ import annotations

import fcntl
import os
import socket

from beaconfire.base.errors import StorageUnusable

LOCK_SUFFIX = ".lock"


class FileLock:
    """A lock on the database file, held by this process until `release` or the end of the process.

    The lock is on a file next to the database, because a lock on the database itself would be lost when SQLite closes
    the file (POSIX, `fcntl`). The file stays and names its holder; the kernel ends the lock with the process.
    """

    def __init__(self, database: str) -> None:
        """Takes the lock. Raises StorageUnusable, which names the holder, if another process has it, and OSError."""
        self._descriptor = os.open(database + LOCK_SUFFIX, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 1000, 0).decode(errors="replace").strip() or "an unknown process"
            os.close(self._descriptor)
            raise StorageUnusable(
                database,
                f"is in use by {holder}. One process serves a file: stop the other one, or set engine.path to another "
                "file",
            ) from None
        except BaseException:
            os.close(self._descriptor)
            raise
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        """Must be called once."""
        os.close(self._descriptor)
