"""Web pages of other sites: only those on the list may connect."""

from __future__ import annotations

import pytest

from tests.acceptance.abuse.surroundings import figures, undisturbed
from tests.acceptance.harness import ServerProcess
from tests.acceptance.peer import Peer, run, upgrade_request

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
    async with await Peer.dial(server.port) as peer:
        await peer.send(upgrade_request(path, [] if origin is None else [("Origin", origin)]))
        return (await peer.response()).status


@pytest.mark.parametrize("path", ["/connection/websocket", "/ws"])
def test_foreign_origins_are_refused(open_house: ServerProcess, path: str) -> None:
    """403, whatever a page calls itself, and counted each time."""

    async def scenario() -> None:
        before = (await figures(open_house)).get(REFUSED, 0)
        async with undisturbed(open_house):
            for origin in FOREIGN:
                assert await status(open_house, path, origin) == 403, origin
        assert (await figures(open_house))[REFUSED] == before + len(FOREIGN)

    run(scenario())


@pytest.mark.parametrize("origin", ALLOWED)
def test_listed_origins_and_programs_may_connect(open_house: ServerProcess, origin: str | None) -> None:
    """101 for what is on the list in whatever case, and for what is no browser and sends none."""

    async def scenario() -> None:
        for path in ("/connection/websocket", "/ws"):
            assert await status(open_house, path, origin) == 101

    run(scenario())


def test_two_origins_are_not_one_of_the_list(open_house: ServerProcess) -> None:
    """A second header must not be what is looked at."""

    async def scenario() -> None:
        async with await Peer.dial(open_house.port) as peer:
            headers = [("Origin", "http://good.example"), ("Origin", "http://evil.example")]
            await peer.send(upgrade_request(headers=headers))
            assert (await peer.response()).status == 403

    run(scenario())
