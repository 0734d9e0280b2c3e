"""Fixtures of all acceptance tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.acceptance.server_process import PERMISSIVE_CONFIG, ServerProcess

StartServer: TypeAlias = Callable[..., ServerProcess]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers with other settings: `start_server({"client.ping_interval": "1s"})`. Ends them after the test."""
    with ExitStack() as stack:

        def start(overrides: dict[str, str] | None = None, config: str = PERMISSIVE_CONFIG) -> ServerProcess:
            return stack.enter_context(ServerProcess(tmp_path, config, overrides))

        yield start
