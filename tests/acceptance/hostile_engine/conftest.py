"""Log and garbage collection as in the process of a server."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from beaconfire.observe import logs
from beaconfire.observe.options import LogOptions
from beaconfire.server.process_setup import tune_garbage_collector


@pytest.fixture(autouse=True)
def log(tmp_path: Path) -> Iterator[Path]:
    """The log of the node."""
    path = tmp_path / "log"
    with path.open("w") as stream:
        logs.configure(LogOptions(), stream)
        yield path
        logs.reset()


@pytest.fixture(autouse=True)
def garbage_collection() -> Iterator[None]:
    """See `server.process`."""
    threshold = gc.get_threshold()
    tune_garbage_collector()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()
