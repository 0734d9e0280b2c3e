"""Every module of this folder runs the suite of the folder above against Beaconfire under one ASGI server.

A module sets `HOST` to a name of `HOSTS`, and `TRANSPORTS` to the transports that its tests use.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.acceptance.host_process import HOSTS, HostProcess
from tests.acceptance.server_process import ServerProcess
from tests.conformance.transports.client_transports import PERSISTENT_TRANSPORTS
from tests.conformance.transports.conftest import CONFIG, MakeServer


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs the tests with the transports of their module."""
    names = metafunc.module.TRANSPORTS
    if "transport" in metafunc.fixturenames:
        metafunc.parametrize("transport", names, indirect=True)
    if "persistent_transport" in metafunc.fixturenames:
        persistent = [name for name in names if name in PERSISTENT_TRANSPORTS]
        metafunc.parametrize("persistent_transport", persistent, indirect=True)


@pytest.fixture(scope="module")
def make_server(request: pytest.FixtureRequest) -> MakeServer:
    return partial(HostProcess, HOSTS[request.module.HOST])


@pytest.fixture(scope="module")
def server(make_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with make_server(tmp_path_factory.mktemp("server"), CONFIG) as process:
        yield process


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> str:
    """The name of one of `CLIENT_TRANSPORTS`."""
    return str(request.param)


@pytest.fixture
def persistent_transport(request: pytest.FixtureRequest) -> str:
    """The name of one of `PERSISTENT_TRANSPORTS`."""
    return str(request.param)
