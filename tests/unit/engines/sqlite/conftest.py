"""Processes on one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.engines.sqlite.support import Process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def start(path: Path) -> Iterator[Callable[[], Process]]:
    """Starts one process after the other on the same file, and ends the last one."""
    processes: list[Process] = []

    def start_next() -> Process:
        for process in processes:
            process.end()
        processes.append(Process(path).start())
        return processes[-1]

    yield start_next
    for process in processes:
        process.end()
