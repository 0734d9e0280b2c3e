"""Fixtures of the abuse tests. Each server must be healthy after the tests that used it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import StartServer
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import assert_healthy, healthy_server


@pytest.fixture(scope="module")
def permissive_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with default limits where every client may do everything. The tests of a module share it."""
    with healthy_server(tmp_path_factory.mktemp("permissive")) as server:
        yield server


@pytest.fixture
def start_server(start_server: StartServer) -> Iterator[StartServer]:
    """Starts servers as the fixture of all acceptance tests does, and checks their health at the end."""
    servers: list[ServerProcess] = []

    def start(*arguments: object) -> ServerProcess:
        servers.append(start_server(*arguments))
        return servers[-1]

    yield start
    for server in servers:
        assert_healthy(server)
