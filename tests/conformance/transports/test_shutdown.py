"""The end of a server, on every transport."""

from __future__ import annotations

import asyncio

from tests.acceptance.deadlines import run_scenario, wait_until
from tests.conformance.transports.client_transports import CLIENT_TRANSPORTS
from tests.conformance.transports.conftest import StartServer
from tests.conformance.transports.scenario_client import connected_client
from tests.conformance.transports.test_scenario import call, token


def test_sigterm_disconnects_all_clients(transport: str, start_server: StartServer) -> None:
    """With code 3001, after which they reconnect to another node. The exit code is 0."""
    server = start_server({"server.drain_rate": "500"})

    async def scenario() -> None:
        async with connected_client(CLIENT_TRANSPORTS[transport](server), token("ann"), "room") as ann:
            await wait_until(
                lambda: "room" in call(server, "channels")["channels"], "the client is subscribed, also if it polls"
            )
            assert await asyncio.to_thread(server.stop) == 0
            assert await ann.wait_ended() == 3001

    run_scenario(scenario())
