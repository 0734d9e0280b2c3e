"""The documents of the server API, which need no API key: the OpenAPI document and a reference page that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from beaconfire.api.openapi import document
from beaconfire.api.responses import JSON, NOSNIFF, Response

PATHS: Final = frozenset(("/", "/page.js", "/page.css", "/openapi.json"))
"""The paths of the documents, relative to `/api`."""

_FOLDER: Final = Path(__file__).parent.parent / "web" / "api_reference"
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
def load_documents() -> Mapping[str, Response]:
    """The response for each of `PATHS`. Reads files and takes about 20 ms, so servers call it once, at start-up."""
    return {
        "/": _file("page.html", b"text/html; charset=utf-8"),
        "/page.js": _file("page.js", b"text/javascript; charset=utf-8"),
        "/page.css": _file("page.css", b"text/css; charset=utf-8"),
        "/openapi.json": Response(200, msgspec.json.encode(document()), (JSON, *_HEADERS)),
    }


def _file(name: str, media_type: bytes) -> Response:
    return Response(200, (_FOLDER / name).read_bytes(), ((b"content-type", media_type), *_HEADERS))
