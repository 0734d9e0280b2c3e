"""The HTTP source of a key set: redirects, and what it needs before the first request. No network."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from yarl import URL

from beaconfire.auth.jwks_http import FetchFailed, HttpKeySetSource, redirect_target


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("https://keys.example/a", "https://keys.example/b", "https://keys.example/b"),
        ("https://keys.example/a", "https://other.example/b", "https://other.example/b"),
        ("https://keys.example/a", "/b?c=d", "https://keys.example/b?c=d"),
        ("https://keys.example/a/b", "c", "https://keys.example/a/c"),
        ("https://keys.example/a", "//other.example/b", "https://other.example/b"),
        ("http://keys.example/a", "http://keys.example/b", "http://keys.example/b"),
        ("http://keys.example/a", "https://keys.example/b", "https://keys.example/b"),
    ],
)
def test_redirects_are_followed(url: str, location: str, target: str) -> None:
    """Absolute and relative redirects are followed within https, within http, and from http to https."""
    assert redirect_target(URL(url), location) == URL(target)


@pytest.mark.parametrize(
    ("url", "location", "text"),
    [
        ("https://keys.example/a", "http://keys.example/b", "from https to http refused"),
        ("https://keys.example/a", "http:", "not an http or https address"),
        ("https://keys.example/a", "ftp://keys.example/b", "not an http or https address"),
        ("https://keys.example/a", "file:///etc/passwd", "not an http or https address"),
        ("https://keys.example/a", "data:,{}", "not an http or https address"),
        ("https://keys.example/a", "https://[::1", "not an http or https address"),
        ("https://keys.example/a", "https://keys.example:port/", "not an http or https address"),
        ("https://keys.example/a", "", "not an http or https address"),
    ],
)
def test_redirects_never_leave_https(url: str, location: str, text: str) -> None:
    """A redirect from https to http, to another scheme, or to no valid URL fails the fetch."""
    with pytest.raises(FetchFailed, match=text):
        redirect_target(URL(url), location)


def test_closing_an_unused_source_does_nothing() -> None:
    """`close` works before the first fetch, and twice."""

    async def scenario() -> None:
        source = HttpKeySetSource("https://keys.example/jwks")
        await source.close()
        await source.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("jwks_url", "imported"), [("", False), ("https://keys.example/jwks", True)])
def test_aiohttp_is_imported_at_start_up_and_only_for_a_key_set(jwks_url: str, imported: bool) -> None:
    """Without `jwks_url` aiohttp is never imported; with it, before the first fetch, which must not block."""
    program = (
        "import sys\n"
        "from beaconfire.auth.options import TokenOptions\n"
        "from beaconfire.auth.tokens import JWTVerifier\n"
        "from beaconfire.base.clock import ManualClock\n"
        "from beaconfire.model.events import NoEvents\n"
        f"JWTVerifier(TokenOptions(jwks_url={jwks_url!r}), ManualClock(), NoEvents())\n"
        "sys.exit('aiohttp' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == int(imported)
