"""Web pages of other sites: only those on the list may connect."""

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


async def status(server: ServerProcess, path: str, origin: str | None) -> int:
    async with await RawPeer.connect_tcp(server.port) as peer:
        await peer.send(encode_upgrade_request(path, [] if origin is None else [("Origin", origin)]))
        return (await peer.read_response_head()).status


@pytest.mark.parametrize("path", ["/connection/websocket", "/ws"])
def test_foreign_origins_are_refused(permissive_server: ServerProcess, path: str) -> None:
    """403, whatever a page calls itself, and counted each time."""

    async def scenario() -> None:
        before = (await read_metrics(permissive_server)).get(REFUSED, 0)
        async with undisturbed_traffic(permissive_server):
            for origin in FOREIGN:
                assert await status(permissive_server, path, origin) == 403, origin
        assert (await read_metrics(permissive_server))[REFUSED] == before + len(FOREIGN)

    run_scenario(scenario())


@pytest.mark.parametrize("origin", ALLOWED)
def test_listed_origins_and_programs_may_connect(permissive_server: ServerProcess, origin: str | None) -> None:
    """101 for what is on the list in whatever case, and for what is no browser and sends none."""

    async def scenario() -> None:
        for path in ("/connection/websocket", "/ws"):
            assert await status(permissive_server, path, origin) == 101

    run_scenario(scenario())


def test_two_origins_are_not_one_of_the_list(permissive_server: ServerProcess) -> None:
    """A second header must not be what is looked at."""

    async def scenario() -> None:
        async with await RawPeer.connect_tcp(permissive_server.port) as peer:
            headers = [("Origin", "http://good.example"), ("Origin", "http://evil.example")]
            await peer.send(encode_upgrade_request(headers=headers))
            assert (await peer.read_response_head()).status == 403

    run_scenario(scenario())
