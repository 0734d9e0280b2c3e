"""Dictionaries that were large once."""

from __future__ import annotations

import sys
from typing import Any

KEPT_BYTES_MIN = 64 * 1024
"""Tables smaller than this are left alone."""
KEPT_BYTES_PER_ENTRY_MAX = 2000
"""An ordinary table has at most 120 bytes an entry, just after it has grown."""


def shrink(table: dict[Any, Any]) -> None:
    """Gives back the memory of a dictionary that has become almost empty; its order stays.

    A dictionary never shrinks by deletion, so a million channels that are gone would leave 80 MB behind. Copying is
    worth its time only if little is left: with this threshold, 1/20 or less of what the table was made for.
    """
    kept_bytes = sys.getsizeof(table)
    if kept_bytes > KEPT_BYTES_MIN and kept_bytes > KEPT_BYTES_PER_ENTRY_MAX * len(table):
        entries = list(table.items())
        table.clear()
        table.update(entries)
