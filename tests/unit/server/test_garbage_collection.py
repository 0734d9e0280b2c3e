"""Garbage collection in the process of a server."""

from __future__ import annotations

import gc

from beaconfire.server.process_setup import tune_garbage_collector


def test_collections_are_short_or_rare() -> None:
    """A collection walks over at most 6,000 objects, some milliseconds, or follows 20 million allocations."""
    before = gc.get_threshold()
    tune_garbage_collector()
    try:
        youngest, young, all_objects = gc.get_threshold()
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
    assert youngest * (young + 1) <= 6_000
    assert youngest * young * all_objects >= 20_000_000
