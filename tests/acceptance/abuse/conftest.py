"""Servers for the abuse tests: one that many tests share, and others made to order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.acceptance.abuse.surroundings import OPEN_HOUSE, assert_healthy
from tests.acceptance.harness import ServerProcess

Serve: TypeAlias = Callable[..., ServerProcess]


@pytest.fixture(scope="module")
def open_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Anyone may do anything, under default limits."""
    with ServerProcess(tmp_path_factory.mktemp("open"), OPEN_HOUSE) as server:
        yield server
        assert_healthy(server)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts an open house with settings of one's own: `serve({"client.ping_interval": "1s"})`."""
    servers: list[ServerProcess] = []

    def start(overrides: dict[str, str], config: str = OPEN_HOUSE) -> ServerProcess:
        servers.append(ServerProcess(tmp_path, config, overrides))
        servers[-1].start()
        return servers[-1]

    yield start
    try:
        for server in servers:
            assert_healthy(server)
    finally:
        for server in servers:
            server.__exit__(None, None, None)
