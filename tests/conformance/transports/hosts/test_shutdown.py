"""The end of other ASGI servers: which code clients get, as `docs/how-to/asgi.md` states it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.host_process import HOSTS, Host, HostProcess
from tests.conformance.transports.client_transports import CLIENT_TRANSPORTS
from tests.conformance.transports.conftest import CONFIG
from tests.conformance.transports.scenario_client import connected_client
from tests.conformance.transports.test_scenario import call, token

TRANSPORTS = ()
CODES = {"uvicorn": 1012, "uvicorn-websockets": 1012, "granian": 1006, "hypercorn": 1011, "mounted": 1012}
"""The code of a WebSocket at SIGTERM; 1006 means that the connection ends without a close frame. None of these servers
ends the lifespan before its connections. SDKs reconnect after each of these codes."""


@pytest.mark.parametrize("host", CODES)
@pytest.mark.parametrize("name", ["websocket-json", "http_stream-json"])
def test_sigterm_ends_all_connections_and_the_process(host: str, name: str, tmp_path: Path) -> None:
    """Within the server's own timeout for shutting down. A response stream ends without a code."""
    assert code_at_sigterm(HOSTS[host], name, tmp_path) == (CODES[host] if name == "websocket-json" else 1006)


@pytest.mark.parametrize("name", CLIENT_TRANSPORTS)
def test_host_that_drains_first_sends_3001(name: str, tmp_path: Path) -> None:
    """As `beaconfire serve`: the host calls `drain` before its server closes the connections."""
    host = Host(("python", "-m", "tests.acceptance.draining_host", "PORT"))
    assert code_at_sigterm(host, name, tmp_path) == 3001


def code_at_sigterm(host: Host, name: str, folder: Path) -> int:
    """The code that a client gets. The process must exit."""
    settings = {"client.ping_interval": "25s", "server.drain_rate": "500"}
    server = HostProcess(host, folder, CONFIG, settings)

    async def scenario() -> int:
        async with connected_client(CLIENT_TRANSPORTS[name](server), token("ann"), "room") as ann:
            await wait_until(lambda: "room" in call(server, "channels")["channels"], "the client is subscribed")
            await asyncio.to_thread(server.stop)
            return await ann.wait_ended()

    with server:
        return run_scenario(scenario())
