"""Frees the memory of dictionaries that used to be large."""

from __future__ import annotations

import sys
from typing import Any

KEPT_BYTES_MIN = 64 * 1024
"""Smaller dictionaries are never shrunk."""
KEPT_BYTES_PER_ENTRY_MAX = 2000
"""Dictionaries with more bytes per entry are shrunk. A dictionary that just grew has at most 120 bytes per entry."""


def shrink_dict(table: dict[Any, Any]) -> None:
    """Frees unused memory of a dictionary that has become almost empty. The order of the entries stays the same.

    Deleting entries does not shrink a dictionary, so a million removed channels would leave 80 MB allocated. Copying
    pays off only if few entries are left; with this threshold, at most 1/20 of the capacity.
    """
    kept_bytes = sys.getsizeof(table)
    if kept_bytes > KEPT_BYTES_MIN and kept_bytes > KEPT_BYTES_PER_ENTRY_MAX * len(table):
        entries = list(table.items())
        table.clear()
        table.update(entries)
