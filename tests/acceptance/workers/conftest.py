"""Starts groups of workers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.server_process import PERMISSIVE_CONFIG
from tests.acceptance.workers.group import WorkerGroup


@pytest.fixture
def group() -> Iterator[WorkerGroup]:
    """Four workers with the memory engine."""
    with tempfile.TemporaryDirectory(prefix="bf", ignore_cleanup_errors=True) as folder:
        with WorkerGroup(Path(folder), PERMISSIVE_CONFIG, {"server.drain_delay": "0s"}) as started:
            yield started
