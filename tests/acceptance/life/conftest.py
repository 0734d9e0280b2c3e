"""Servers that are ended in one way or another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.acceptance.abuse.surroundings import OPEN_HOUSE
from tests.acceptance.harness import ServerProcess

Serve: TypeAlias = Callable[..., ServerProcess]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts an open house with settings of one's own: `serve(drain_window="3s")` sets them in `[server]`."""
    servers: list[ServerProcess] = []

    def start(**settings: str) -> ServerProcess:
        overrides = {name.replace("__", ".") if "__" in name else f"server.{name}": settings[name] for name in settings}
        servers.append(ServerProcess(tmp_path, OPEN_HOUSE, overrides))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__(None, None, None)
