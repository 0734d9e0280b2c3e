"""The write transaction of one batch."""

from __future__ import annotations

import sqlite3


class Transaction:
    """A write transaction that begins with the first write. Batches that only read have none."""

    __slots__ = ("connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def begin(self) -> sqlite3.Connection:
        """Begins the transaction, if it has not begun, and returns the connection for a write."""
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN IMMEDIATE")
        return self.connection

    def commit(self) -> None:
        """With `synchronous = FULL` the writes are on disk when this returns."""
        if self.connection.in_transaction:
            self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """SQLite itself has already rolled back after some errors."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
