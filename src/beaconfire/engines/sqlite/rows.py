"""Writes many rows with few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence, Sized
from functools import cache
from itertools import chain
from typing import Final

_ROWS_PER_STATEMENT: Final = (64, 16, 4, 1)
"""Few different numbers, so that the prepared statements are found in the cache of the connection."""


def write_rows(
    connection: sqlite3.Connection, insert: str, rows: Sequence[tuple[object, ...]], conflict: str = ""
) -> None:
    """Executes `insert VALUES (…), (…), … conflict` for all rows.

    `executemany` would give up Python's global lock once for each row, and then wait for a busy event loop each time,
    up to five milliseconds. This gives it up once for each statement.
    """
    start = 0
    for size in _ROWS_PER_STATEMENT:
        while len(rows) - start >= size:
            values = tuple(chain.from_iterable(rows[start : start + size]))
            connection.execute(_statement(insert, conflict, len(rows[0]), size), values)
            start += size


@cache
def _statement(insert: str, conflict: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"{insert} VALUES {', '.join([row] * rows)} {conflict}"


def placeholders(values: Sized) -> str:
    """The placeholders of a list of this many values in a statement."""
    return ", ".join("?" * len(values))
