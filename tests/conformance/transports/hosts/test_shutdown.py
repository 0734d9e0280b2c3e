"""The end of other ASGI servers: which code clients get, as `docs/how-to/asgi.md` states it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.acceptance.deadlines import run_scenario
from tests.acceptance.host_process import HOSTS, HostProcess
from tests.conformance.transports.client_transports import CLIENT_TRANSPORTS
from tests.conformance.transports.conftest import CONFIG
from tests.conformance.transports.scenario_client import connected_client
from tests.conformance.transports.test_scenario import token

TRANSPORTS = ()
CODES = {"uvicorn": 1012, "uvicorn-websockets": 1012, "granian": 1006, "hypercorn": 1011, "mounted": 1012}
"""The code of a WebSocket at SIGTERM; 1006 means that the connection ends without a close frame. None of these servers
ends the lifespan before its connections. SDKs reconnect after each of these codes."""


@pytest.mark.parametrize("host", CODES)
@pytest.mark.parametrize("name", ["websocket-json", "http_stream-json"])
def test_sigterm_ends_all_connections_and_the_process(host: str, name: str, tmp_path: Path) -> None:
    """Within the server's own timeout for shutting down. A response stream ends without a code."""
    server = HostProcess(HOSTS[host], tmp_path, CONFIG, {"client.ping_interval": "25s"})

    async def scenario() -> None:
        async with connected_client(CLIENT_TRANSPORTS[name](server), token("ann"), "room") as ann:
            await asyncio.to_thread(server.stop)
            assert await ann.wait_ended() == (CODES[host] if name == "websocket-json" else 1006)

    with server:
        run_scenario(scenario())
