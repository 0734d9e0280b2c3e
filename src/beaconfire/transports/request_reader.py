"""Reads HTTP requests with httptools: the one set of rules for requests that do not pass through uvicorn's parser.

It reads WebSocket upgrades (`websocket.handshake`) and POSTs to the server API (`http.direct_posts`). If a new request
is unusual, both pass its bytes to the HTTP server instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, TypeAlias

import httptools

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Header fields in the order of the request. Names are in lower case."""

_KNOWN_HOSTS_MAX: Final = 64
"""How many values of the Host field are cached, because nearly all requests have the same few. A value is shorter than
a request head may be, so invented values take at most 64 times `server.header_max_size`."""

_HOST = re.compile(
    rb"(?:\[[0-9A-Za-z:.%~_-]+\]"  # an IPv6 address
    rb"|(?:[0-9A-Za-z._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)"  # an IPv4 address or a name, which may be empty
    rb"(?::[0-9]*)?"
)
"""`uri-host [ ":" port ]` of RFC 9110 section 7.2, with the characters of RFC 3986 section 3.2.2."""


@lru_cache(_KNOWN_HOSTS_MAX)
def is_valid_host(value: bytes) -> bool:
    """Whether `value` is a valid Host header field. Whitespace at its end is ignored (RFC 9112 section 3.2).

    The value may be empty: a client sends an empty Host if its target has no host.
    """
    return _HOST.fullmatch(value.rstrip(b" \t")) is not None


def has_one_valid_host(headers: Headers) -> bool:
    """Whether a request has exactly one Host header field and it is valid (RFC 9112 section 3.2)."""
    values = [value for name, value in headers if name == b"host"]
    return len(values) == 1 and is_valid_host(values[0])


class RequestReader:
    """Reads the head and the body of one request after the other.

    The rules, which hold for WebSocket upgrades and for API requests alike:

    - A request, and what was read together with it, has at most `size_max` bytes.
    - A request has exactly one Host header field, and it is valid: see `has_valid_host`.
    - Trailer fields are dropped, because they are not header fields (RFC 9110 section 6.5.1).
    - A read must not contain the beginning of a second request: see `feed`.

    The reader and its parser refer to each other. Call `close` before dropping the reader: then both are freed without
    a garbage collection.
    """

    __slots__ = (
        "_has_head",
        "_host_count",
        "_parser",
        "_request_count",
        "_size",
        "_size_max",
        "body",
        "headers",
        "is_complete",
        "keep_alive",
        "target",
        "upgrade_offset",
        "version",
    )

    def __init__(self, size_max: int) -> None:
        self._parser: httptools.HttpRequestParser = httptools.HttpRequestParser(self)
        self._size_max = size_max
        self._begin()

    def take(self) -> tuple[Headers, bytes, bool]:
        """Returns headers, body, and whether the connection stays open; then prepares for the next request."""
        taken = self.headers, self.body, self.keep_alive
        self._begin()
        return taken

    def _begin(self) -> None:
        self.target = self.body = b""
        self.version = ""
        self.headers: list[tuple[bytes, bytes]] = []
        self.upgrade_offset = 0
        self.is_complete = self.keep_alive = self._has_head = False
        self._size = self._request_count = self._host_count = 0

    def close(self) -> None:
        """Releases the parser. The reader reads nothing afterwards. Idempotent."""
        self._parser = None  # type: ignore[assignment]  # an optional type would need a check in every method

    def feed(self, data: bytes) -> bool:
        """Reads the next bytes of the request. False if they violate HTTP, exceed `size_max` or begin another request.

        For a request with an upgrade, the parser stops after the head. `upgrade_offset` is then the number of bytes of
        `data` that belong to the head, and 0 otherwise.
        """
        self._size += len(data)
        if self._size > self._size_max:
            return False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.upgrade_offset = upgrade.args[0]
        except httptools.HttpParserError:
            return False
        return self._request_count == 1

    @property
    def method(self) -> str:
        return self._parser.get_method().decode("latin-1")

    @property
    def has_valid_host(self) -> bool:
        """Whether the head has exactly one Host field and it is valid (RFC 9112 section 3.2)."""
        return self._host_count == 1

    @property
    def is_plain(self) -> bool:
        """Whether the head is complete: HTTP/1.1, one valid Host, no upgrade, no `Expect`."""
        if self.version != "1.1" or self._host_count != 1 or self.upgrade_offset:
            return False
        for name, _ in self.headers:  # noqa: SIM110 - any() would take twice as long
            if name == b"expect":
                return False
        return True

    @property
    def content_length(self) -> int:
        """The value of Content-Length; 0 without the field."""
        return next((int(value) for name, value in self.headers if name == b"content-length"), 0)

    # -- Callbacks of httptools --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._request_count += 1

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_head:
            return  # a trailer field
        name = name.lower()
        if name == b"host":
            self._host_count += 1 if is_valid_host(value) else 2  # a sum other than 1 means an invalid request
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        self._has_head = True
        self.version = parser.get_http_version()
        self.keep_alive = parser.should_keep_alive()

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.is_complete = True
