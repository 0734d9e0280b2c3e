"""What a browser may get from the API without a key: the OpenAPI document, and a page to read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from beaconfire.api.openapi import document
from beaconfire.api.responses import JSON, NOSNIFF, Response

_FOLDER: Final = Path(__file__).parent
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    NOSNIFF,
    (b"cache-control", b"no-cache"),
    (b"content-security-policy", _POLICY),
    (b"referrer-policy", b"no-referrer"),
)


@cache
def _openapi() -> Response:
    return Response(200, msgspec.json.encode(document()), (JSON, *_HEADERS))


def _file(name: str, media_type: bytes) -> Callable[[], Response]:
    """The file is read when this module is loaded: reading it for a request would block the event loop."""
    response = Response(200, (_FOLDER / name).read_bytes(), ((b"content-type", media_type), *_HEADERS))
    return lambda: response


ASSETS: Final[Mapping[str, Callable[[], Response]]] = {
    "/": _file("page.html", b"text/html; charset=utf-8"),
    "/page.js": _file("page.js", b"text/javascript; charset=utf-8"),
    "/page.css": _file("page.css", b"text/css; charset=utf-8"),
    "/openapi.json": _openapi,
}
"""By path under `/api`."""
