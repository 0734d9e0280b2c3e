"""Fetches the key set behind `jwks_url` over HTTP, with aiohttp.

Importing aiohttp takes about 170 ms, so import this module only where a key set is configured.
"""

from __future__ import annotations

from typing import Final
from urllib.request import getproxies, proxy_bypass

from aiohttp import ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from yarl import URL

BODY_BYTES_MAX: Final = 256 * 1024
"""A longer response counts as a failed fetch."""

REDIRECTS_MAX: Final = 10

_REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {
    "Accept": "application/jwk-set+json, application/json",
    # No compression: a small compressed response could expand to any size.
    "Accept-Encoding": "identity",
}


class FetchFailed(Exception):
    """The provider's response is not a document."""


class HttpKeySetSource:
    """The document behind one URL (implements `jwks.KeySetSource`).

    Owns one HTTP session, which is created by the first `fetch` and closed by `close`. A single session also limits
    name lookups: aiohttp runs one lookup per host at a time, and a thread that hangs in a lookup can't be cancelled.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: ClientSession | None = None

    async def fetch(self) -> bytes:
        """The body of the URL, after redirects.

        Has no deadline of its own: the caller cancels it. Raises FetchFailed, `aiohttp.ClientError`, OSError or
        ValueError.
        """
        session = self._open_session()
        url = URL(self._url)
        for _ in range(1 + REDIRECTS_MAX):
            async with session.get(url, headers=_HEADERS, proxy=_proxy_for(url), allow_redirects=False) as response:
                if response.status not in _REDIRECT_STATUSES:
                    return await _read_body(response)
                url = redirect_target(url, response.headers.get("Location", ""))
        raise FetchFailed(f"more than {REDIRECTS_MAX} redirects")

    async def close(self) -> None:
        """Closes the HTTP session. Call it after the last `fetch` has ended."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open_session(self) -> ClientSession:
        if self._session is None:
            self._session = ClientSession(
                # Fetches are far apart: a connection that stays open between them would be stale when used again.
                connector=TCPConnector(force_close=True),
                timeout=ClientTimeout(),
                cookie_jar=DummyCookieJar(),
                auto_decompress=False,
                # True would honour proxies, but would also send passwords from ~/.netrc. See `_proxy_for`.
                trust_env=False,
            )
        return self._session


def redirect_target(url: URL, location: str) -> URL:
    """The absolute URL of the `Location` header in a response from `url`.

    Raises FetchFailed if the redirect leads from https to http, where anyone on the network path could replace the
    keys, or to a URL that is neither http nor https.
    """
    try:
        target = url.join(URL(location)) if location else None
    except ValueError:
        target = None
    if target is None or not target.host or target.scheme not in ("http", "https"):
        raise FetchFailed("redirect to something that is not an http or https address")
    if url.scheme == "https" and target.scheme != "https":
        raise FetchFailed("redirect from https to http refused")
    return target


def _proxy_for(url: URL) -> str | None:
    """The proxy that `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name for `url`, in the way Python's urllib reads them.

    On macOS and Windows the settings of the system count, too.
    """
    proxy = None if proxy_bypass(url.host or "") else getproxies().get(url.scheme)
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


async def _read_body(response: ClientResponse) -> bytes:
    if response.status // 100 != 2:
        raise FetchFailed(f"HTTP status {response.status}")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise FetchFailed(f"the response is longer than {BODY_BYTES_MAX} bytes")
    return bytes(body)
