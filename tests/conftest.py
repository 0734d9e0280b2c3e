"""How all tests run: in random order, in parallel, and with cached bytecode.

pytest-randomly shuffles the modules, and the tests within a module; its seed is printed at the start of a run.
pytest-xdist (`make test`) gives each module to one worker. This file then sorts the shuffled modules: folders with long
tests first, and within a module the tests marked `quiet`, which run alone on the machine, after each other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from blockbuster import BlockBuster

from tests.machine_lock import MachineLock

LONG_FIRST = ("browser", "acceptance", "docs", "bench", "conformance", "simulation", "fuzz", "unit")
"""Folders in the order in which their modules are given to workers: the short modules fill the gaps at the end."""

NEVER_BLOCK = ("unit", "simulation")
"""Folders whose tests fail when the package makes a blocking call on an event loop."""

MAY_BLOCK = (
    ("beaconfire/server/app.py", "__init__"),  # start-up: no client is connected
    ("beaconfire/api/documents.py", "load_documents"),  # start-up
    ("beaconfire/engines/hub/socket_file.py", "__init__"),  # start-up
    ("beaconfire/engines/hub/socket_file.py", "close"),  # the end
    ("beaconfire/observe/send_queues.py", "send_queue_bytes"),  # files in /proc do not block
    ("beaconfire/engines/sqlite/thread.py", "start"),  # start-up: the start of a thread
    ("prometheus_client/process_collector.py", "collect"),  # the same
    ("beaconfire/transports/websocket/sender.py", "_send"),  # the descriptor of the socket does not block
)
"""Files and functions whose calls only look like blocking ones, or block no client."""

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache"
BYTECODE = CACHE / "bytecode"

_machine_lock = MachineLock(CACHE / "tests")


def _forbid_blocking_calls() -> BlockBuster:
    """Forbids the package to block the thread of a running event loop, except in the functions of `MAY_BLOCK`."""
    forbidden = BlockBuster("beaconfire")
    for function in forbidden.functions.values():
        for file, caller in MAY_BLOCK:
            function.can_block_in(file, caller)
    return forbidden


_blocking_calls = _forbid_blocking_calls()


def _keep_bytecode() -> None:
    """Makes this process, its workers and the servers they start cache bytecode, in a folder outside the sources.

    In an environment that forbids bytecode files (PYTHONDONTWRITEBYTECODE), each of the hundreds of processes that the
    tests start would compile all its modules again, which takes longer than the rest of the process's work.
    """
    sys.pycache_prefix = str(BYTECODE)
    sys.dont_write_bytecode = False
    os.environ["PYTHONPYCACHEPREFIX"] = str(BYTECODE)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


_keep_bytecode()

# The time that an example takes depends on what else the machine does. `timeout` bounds the whole test.
hypothesis.settings.register_profile("beaconfire", deadline=None)
hypothesis.settings.load_profile("beaconfire")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the tests that pytest-randomly has shuffled.

    The sort is stable and does not depend on the process, so all workers collect the tests in the same order.
    """
    module_places: dict[Path, int] = {}
    for item in items:
        module_places.setdefault(item.path, len(module_places))
    items.sort(key=lambda item: (_folder_rank(item.path), module_places[item.path], _is_quiet(item)))


def _folder_rank(path: Path) -> int:
    """Position of the module's folder in `LONG_FIRST`. Folders that are not in it come first."""
    folder = _folder(path)
    return LONG_FIRST.index(folder) if folder in LONG_FIRST else -1


def _folder(path: Path) -> str:
    """The folder of `tests` that has the module, directly or in a folder within."""
    return path.relative_to(HERE).parts[0] if path.is_relative_to(HERE) else ""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Takes the lock before all other hooks, so that the wait does not count towards the test's timeout."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    _machine_lock.acquire(exclusive=_is_quiet(item))
    try:
        return (yield)
    finally:
        if nextitem is None or not (_is_quiet(item) and _is_quiet(nextitem)):
            _machine_lock.release()


def _is_quiet(item: pytest.Item) -> bool:
    return item.get_closest_marker("quiet") is not None


@pytest.fixture(autouse=True)
def no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """In the folders of `NEVER_BLOCK`, a blocking call on an event loop raises `blockbuster.BlockingError`."""
    if _folder(request.path) not in NEVER_BLOCK:
        yield
        return
    _blocking_calls.activate()
    try:
        yield
    finally:
        _blocking_calls.deactivate()
