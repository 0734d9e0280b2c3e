"""HTTP answers as values, made before a byte of them is sent."""

from __future__ import annotations

from typing import Final, NamedTuple

Headers = tuple[tuple[bytes, bytes], ...]

JSON: Final = (b"content-type", b"application/json")
TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
NO_STORE: Final = (b"cache-control", b"no-store")
CLOSE: Final = (b"connection", b"close")

JSON_HEADERS: Final[Headers] = (JSON, NOSNIFF, NO_STORE)


class Response(NamedTuple):
    """`headers` is all of them but content-length."""

    status: int
    body: bytes
    headers: Headers = JSON_HEADERS


class ApiRefused(Exception):
    """The request goes no further; this is its answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def plain(status: int, text: str, *headers: tuple[bytes, bytes]) -> Response:
    """A sentence for whoever looks at the wire."""
    return Response(status, f"{text}\n".encode(), (TEXT, NOSNIFF, NO_STORE, *headers))
