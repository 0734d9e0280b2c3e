"""One process per database file, and a record of the last session outside of the file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
from typing import Final

from msgspec import Struct

from beaconfire.base.errors import StorageUnusable

LOCK_SUFFIX = ".lock"

_SESSION: Final = re.compile(r"session (-?\d+)(, closed)?")


class Session(Struct, frozen=True):
    """The time from `Writer.open` to `Writer.close`. The database has the number as well, so a file with another number
    is not the one that was last in this place. `closed` tells whether the session ended in an orderly way."""

    number: int
    closed: bool = False


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
            holder = self._read().partition(", session")[0].strip() or "an unknown process"
            os.close(self._descriptor)
            raise StorageUnusable(
                database,
                f"is in use by {holder}. One process serves a file: stop the other one, or set engine.path to another "
                "file",
            ) from None
        except BaseException:
            os.close(self._descriptor)
            raise
        match = _SESSION.search(self._read())
        self.session = Session(int(match[1]), match[2] is not None) if match else Session(-1)
        """The session that the file records. The number is -1 if the file is new."""
        self.record(self.session)

    def record(self, session: Session) -> None:
        """Writes the process and the session into the file. After a failure the file is empty: no session."""
        self.session = session
        state = ", closed" if session.closed else ""
        text = f"process {os.getpid()} on {socket.gethostname()}, session {session.number}{state}\n".encode()
        try:
            # Overwrites first, because this needs no room on the disk.
            os.ftruncate(self._descriptor, os.pwrite(self._descriptor, text, 0))
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)

    def _read(self) -> str:
        return os.pread(self._descriptor, 1000, 0).decode(errors="replace")

    def release(self) -> None:
        """Must be called once."""
        os.close(self._descriptor)
