"""Starts groups of workers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.server_process import PERMISSIVE_CONFIG
from tests.acceptance.workers.group import WorkerGroup


@pytest.fixture
def group() -> Iterator[WorkerGroup]:
    """Four workers with the memory engine."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bf", ignore_cleanup_errors=True))
        started = WorkerGroup(Path(folder), PERMISSIVE_CONFIG, {"server.drain_delay": "0s"})
        stack.enter_context(started)
        yield started
