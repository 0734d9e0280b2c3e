"""Every test of this folder runs once per transport and encoding, against one server with short timeouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.server_process import ServerProcess
from tests.conformance.transports.client_transports import CLIENT_TRANSPORTS, PERSISTENT_TRANSPORTS, ClientTransport

CONFIG = """
[client]
allowed_origins = ["http://localhost"]
ping_interval = "1s"
pong_timeout = "900ms"
expired_close_delay = "300ms"
queue_max_size = "200KB"
[token]
hmac_secret = "secret"
[api]
keys = ["api_key"]
[channel]
presence = true
join_leave = true
force_push_join_leave = true
history_size = 100
history_ttl = "300s"
force_recovery = true
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_presence_for_subscriber = true
allow_history_for_subscriber = true
"""

MakeTransport = Callable[[], ClientTransport]

MakeServer = Callable[..., ServerProcess]
"""Makes a server that is not started yet: `make_server(folder, config, overrides)`."""


StartServer = Callable[[dict[str, str]], ServerProcess]


@pytest.fixture(scope="package")
def make_server() -> MakeServer:
    return ServerProcess


@pytest.fixture(scope="package")
def server(make_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with make_server(tmp_path_factory.mktemp("server"), CONFIG) as process:
        yield process


@pytest.fixture
def start_server(make_server: MakeServer, tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers with other settings. Ends them after the test."""
    with ExitStack() as stack:
        yield lambda overrides: stack.enter_context(make_server(tmp_path, CONFIG, overrides))


@pytest.fixture(params=CLIENT_TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """The name of one of `CLIENT_TRANSPORTS`."""
    return str(request.param)


@pytest.fixture(params=PERSISTENT_TRANSPORTS)
def persistent_transport(request: pytest.FixtureRequest) -> str:
    """The name of a transport whose session lasts longer than one request."""
    return str(request.param)


@pytest.fixture
def make_persistent_transport(server: ServerProcess, persistent_transport: str) -> MakeTransport:
    """As `make_transport`, only for transports whose session lasts longer than one request."""
    return lambda: PERSISTENT_TRANSPORTS[persistent_transport](server)


@pytest.fixture
def make_transport(server: ServerProcess, transport: str) -> MakeTransport:
    return lambda: CLIENT_TRANSPORTS[transport](server)
