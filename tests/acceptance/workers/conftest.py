"""Starts groups of workers. Most tests share one group, because a start takes seconds."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.server_process import PERMISSIVE_CONFIG
from tests.acceptance.workers.group import WorkerGroup


@contextmanager
def start_group(**overrides: str) -> Iterator[WorkerGroup]:
    """Four workers with the memory engine. Settings have `__` instead of a dot."""
    with tempfile.TemporaryDirectory(prefix="bf", ignore_cleanup_errors=True) as folder:
        settings = {name.replace("__", "."): value for name, value in overrides.items()}
        group = WorkerGroup(Path(folder), PERMISSIVE_CONFIG, {"server.drain_delay": "0s", **settings})
        with group:
            yield group


@pytest.fixture(scope="package")
def shared_group() -> Iterator[WorkerGroup]:
    with start_group() as group:
        yield group


@pytest.fixture
def group(shared_group: WorkerGroup) -> WorkerGroup:
    """A group that other tests use as well: all processes serve, with the configuration of the start."""
    shared_group.config_file.write_text(PERMISSIVE_CONFIG)
    asyncio.run(shared_group.wait_calm())
    return shared_group


@pytest.fixture
def own_group() -> Iterator[WorkerGroup]:
    """A group of this test alone, which may end it."""
    with start_group() as group:
        yield group
