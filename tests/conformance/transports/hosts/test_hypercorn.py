"""The suite of all transports under hypercorn."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.acceptance.server_process import ServerProcess
from tests.conformance.transports.test_polling import *  # noqa: F403
from tests.conformance.transports.test_requests import *  # noqa: F403
from tests.conformance.transports.test_scenario import *  # noqa: F403
from tests.conformance.transports.test_unidirectional import *  # noqa: F403

HOST = "hypercorn"
TRANSPORTS = ("websocket-json", "websocket-protobuf", "http_stream-json", "poll-json")


@pytest.fixture  # type: ignore[no-redef]  # replaces the imported one
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    """A client that opens a connection for each request: hypercorn closes a connection, without announcing it, after a
    response for which it has not read the whole request."""
    with httpx.Client(base_url=server.http, timeout=10, limits=httpx.Limits(max_keepalive_connections=0)) as client:
        yield client
