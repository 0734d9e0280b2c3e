"""How all tests run: with compiled modules, and beside each other.

`make test` gives each module to one of several workers (pytest-xdist). Long ones begin first, and the tests marked
`quiet` have the machine to themselves.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.readers_writer_lock import ReadersWriterLock

LONG_FIRST = ("browser", "acceptance", "docs", "bench", "conformance", "simulation", "fuzz", "unit")
"""Folders in the order in which their modules are handed out: what is short fills the gaps in the end."""

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache"
BYTECODE = CACHE / "bytecode"

_lock = ReadersWriterLock(CACHE / "tests")


def _keep_bytecode() -> None:
    """Lets this process, its workers and the servers they start keep compiled modules, in a folder apart.

    Where an environment forbids it (PYTHONDONTWRITEBYTECODE), each of the hundreds of processes that tests start
    would compile all its modules again, which takes longer than all else it does.
    """
    sys.pycache_prefix = str(BYTECODE)
    sys.dont_write_bytecode = False
    os.environ["PYTHONPYCACHEPREFIX"] = str(BYTECODE)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


_keep_bytecode()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _rank(item.path))  # stable: within a folder the order stays


def _rank(path: Path) -> int:
    """The place of a module's folder in the order. Folders that it does not name come first."""
    folder = path.relative_to(HERE).parts[0] if path.is_relative_to(HERE) else ""
    return LONG_FIRST.index(folder) if folder in LONG_FIRST else -1


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Waits for its turn outside of everything else, so that waiting does not count towards the test's timeout."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    _lock.acquire(exclusive=_is_quiet(item))
    try:
        return (yield)
    finally:
        if nextitem is None or not (_is_quiet(item) and _is_quiet(nextitem)):
            _lock.release()


def _is_quiet(item: pytest.Item) -> bool:
    return item.get_closest_marker("quiet") is not None
