"""The `Origin` header of a WebSocket handshake: only allowed origins may connect."""

from __future__ import annotations

import pytest

from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.deadlines import run_scenario
from tests.acceptance.raw_peer import RawPeer, encode_upgrade_request
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import read_metrics

REFUSED = 'beaconfire_handshakes_refused_total{reason="origin"}'

FOREIGN = [
    "http://evil.example",
    "https://good.example",
    "http://good.example:8080",
    "http://good.example.evil.example",
    "http://evil-good.example",
    "http://sub.good.example",
    "https://good.example.evil.example",
    "https://evil.example/.good.example",
    "https://.evil.example",
    "http://good.example/",
    "http://good.example, http://evil.example",
    "null",
    "",
    "good.example",
    "file://",
]
ALLOWED = [
    None,
    "http://good.example",
    "HTTP://GOOD.Example",
    "https://chat.good.example",
    "https://a.b.good.example",
]


async def handshake_status(server: ServerProcess, path: str, origin: str | None) -> int:
    """The HTTP status of a handshake with this `Origin` header, or without one."""
    async with await RawPeer.connect_tcp(server.port) as peer:
        await peer.send(encode_upgrade_request(path, [] if origin is None else [("Origin", origin)]))
        return (await peer.read_response_head()).status


@pytest.mark.parametrize("path", ["/connection/websocket", "/ws"])
def test_foreign_origin_is_refused_with_403(permissive_server: ServerProcess, path: str) -> None:
    """The server refuses and counts every origin that is not allowed, however similar to an allowed one."""

    async def scenario() -> None:
        before = (await read_metrics(permissive_server)).get(REFUSED, 0)
        async with undisturbed_traffic(permissive_server):
            for origin in FOREIGN:
                assert await handshake_status(permissive_server, path, origin) == 403, origin
        assert (await read_metrics(permissive_server))[REFUSED] == before + len(FOREIGN)

    run_scenario(scenario())


@pytest.mark.parametrize("origin", ALLOWED)
def test_allowed_origin_or_no_origin_is_accepted(permissive_server: ServerProcess, origin: str | None) -> None:
    """Origins are compared without regard to case. Clients other than browsers send no `Origin`."""

    async def scenario() -> None:
        for path in ("/connection/websocket", "/ws"):
            assert await handshake_status(permissive_server, path, origin) == 101

    run_scenario(scenario())


def test_two_origin_headers_are_refused(permissive_server: ServerProcess) -> None:
    """One allowed origin of the two is not enough."""

    async def scenario() -> None:
        async with await RawPeer.connect_tcp(permissive_server.port) as peer:
            headers = [("Origin", "http://good.example"), ("Origin", "http://evil.example")]
            await peer.send(encode_upgrade_request(headers=headers))
            assert (await peer.read_response_head()).status == 403

    run_scenario(scenario())
