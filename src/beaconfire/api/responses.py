"""HTTP responses as values."""

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
    """A complete response. `headers` are all headers except content-length."""

    status: int
    body: bytes
    headers: Headers = JSON_HEADERS


class ResponseError(Exception):
    """Ends the processing of a request. `response` is sent to the client."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def text_response(status: int, text: str, *headers: tuple[bytes, bytes]) -> Response:
    """A response with a sentence as plain text."""
    return Response(status, f"{text}\n".encode(), (TEXT, NOSNIFF, NO_STORE, *headers))
