"""Every test of this folder runs once per transport and encoding, against one server with short timeouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), CONFIG) as process:
        yield process


@pytest.fixture(params=CLIENT_TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """The name of one of `CLIENT_TRANSPORTS`."""
    return str(request.param)


@pytest.fixture(params=PERSISTENT_TRANSPORTS)
def make_persistent_transport(server: ServerProcess, request: pytest.FixtureRequest) -> MakeTransport:
    """As `make_transport`, only for transports whose session lasts longer than one request."""
    return lambda: PERSISTENT_TRANSPORTS[str(request.param)](server.port)


@pytest.fixture
def make_transport(server: ServerProcess, transport: str) -> MakeTransport:
    return lambda: CLIENT_TRANSPORTS[transport](server.port)
