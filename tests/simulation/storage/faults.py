"""A database connection that fails, or ends the process, at a chosen call."""

from __future__ import annotations

import sqlite3
from typing import Any, Literal, TypeAlias

Fault: TypeAlias = Literal["crash", "full", "io"]


class Crash(BaseException):
    """The process ends here, as after kill -9."""


class Faults:
    """The next fault: in `calls_left` calls from now on. `after` tells whether the call still takes effect."""

    def __init__(self) -> None:
        self.kind: Fault | None = None
        self.calls_left = 0
        self.after = False
        self.struck = 0
        """How many faults there were."""
        self.disk_full = False
        """While this is true, every write to the file fails, except for those that make room."""

    def plan(self, kind: Fault, calls_left: int, after: bool) -> None:
        self.kind, self.calls_left, self.after = kind, calls_left, after

    def clear(self) -> None:
        self.kind = None
        self.disk_full = False

    def is_due(self, after: bool) -> bool:
        """Called before and after each call."""
        if self.kind is None or self.after is not after:
            return False
        self.calls_left -= 1
        return self.calls_left < 0

    def strike(self) -> None:
        """Raises the planned fault."""
        kind, self.kind = self.kind, None
        self.struck += 1
        if kind == "crash":
            raise Crash
        raise sqlite_error("disk I/O error" if kind == "io" else "database or disk is full", kind == "full")


def sqlite_error(text: str, full: bool) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_IOERR_FSYNC
    return error


class FaultyConnection:
    """Passes calls to a connection. Faults come before or after a call."""

    def __init__(self, connection: sqlite3.Connection, faults: Faults) -> None:
        self.real = connection
        self._faults = faults

    @property
    def in_transaction(self) -> bool:
        return self.real.in_transaction

    def execute(self, statement: str, parameters: Any = ()) -> sqlite3.Cursor:
        if self._faults.is_due(after=False):
            self._faults.strike()
        if self._faults.disk_full and statement.startswith(("INSERT", "UPDATE", "COMMIT")):
            self._faults.struck += 1
            raise sqlite_error("database or disk is full", full=True)
        cursor = self.real.execute(statement, parameters)
        if self._faults.is_due(after=True):
            self._faults.strike()
        return cursor

    def close(self) -> None:
        self.real.close()
