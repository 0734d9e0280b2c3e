"""The request that opened a client's connection, as decisions about the client see it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct


class Handshake(Struct, frozen=True):
    """The request that opened a connection: an HTTP request, or the opening handshake of a WebSocket.

    - `transport` is the name of the transport in metrics: `websocket`.
    - `path` is percent-decoded, `query` is not and has no question mark.
    - `headers` maps lower-case names to values. The values of a repeated header are joined: see `decode_headers`.
    - `client_address` is the client's IP address, without a port; empty if it is unknown, as on a Unix socket. Behind a
      proxy of `server.trusted_proxies` it is the address that the proxy reports.
    """

    transport: str
    path: str = ""
    query: str = ""
    headers: Mapping[str, str] = {}
    client_address: str = ""

    def header(self, name: str) -> str | None:
        """The value of a header, whose name may have capital letters. None if the request does not have the header."""
        return self.headers.get(name.lower())

    @property
    def cookies(self) -> dict[str, str]:
        """The values of the request's cookies by name, without quotes. Parsed at each access.

        Of several cookies with the same name, the last counts, as in Django and Starlette.
        """
        found = {}
        for pair in self.headers.get("cookie", "").split(";"):
            name, equals, value = pair.partition("=")
            if equals:
                found[name.strip()] = _unquote(value.strip())
        return found


_escapes: Final = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))")


def _unquote(value: str) -> str:
    """The value of a cookie without quotes and escapes, as `http.cookies` decodes it.

    In `http.cookies` of Python before 3.11.10 and 3.12.6, the time grows with the square of the length
    (CVE-2024-7592): a head of 16 KB would take a second.
    """
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    return _escapes.sub(lambda found: chr(int(found[1], 8)) if found[1] else found[2], value[1:-1])


_KNOWN_NAMES: Final = {
    name.encode(): name
    for name in (
        "accept",
        "accept-encoding",
        "accept-language",
        "authorization",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "origin",
        "pragma",
        "referer",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "upgrade",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-real-ip",
    )
}
"""Names that most requests have. All requests share these texts: a look-up is faster than decoding, and takes no memory
for each request."""


def decode_headers(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The values of header fields by name, without spaces around them. The names must be in lower case.

    The values of a repeated header are joined with ", " (RFC 9110 section 5.2), those of Cookie with "; " (RFC 9113
    section 8.2.3).
    """
    headers: dict[str, str] = {}
    for name, value in fields:
        key = _KNOWN_NAMES.get(name) or name.decode("latin-1")
        text = value.decode("latin-1").strip(" \t")
        if key in headers:
            text = f"{headers[key]}{'; ' if key == 'cookie' else ', '}{text}"
        headers[key] = text
    return headers
