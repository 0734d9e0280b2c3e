"""Getting one small document over HTTP, in a thread, with a limit on everything."""

from __future__ import annotations

import time
import urllib.request
from http.client import HTTPMessage
from typing import IO, Final
from urllib.error import HTTPError
from urllib.parse import urlsplit

BODY_SIZE_MAX: Final = 256 * 1024
"""Bytes of a key set; a longer answer counts as a failed fetch."""

_CHUNK_SIZE: Final = 64 * 1024


class NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to http: keys from there could be anybody's."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise HTTPError(req.full_url, code, "redirect from https to something else refused", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_url(url: str) -> None:
    """Raises ValueError if `url` is not an http or https address."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an unclosed bracket, a port that is no number
        good = False
    if not good:
        raise ValueError("expected an http or https address like https://example.com/.well-known/jwks.json")


def fetch_body(url: str, timeout_s: float) -> bytes:
    """The body of `url`. Blocks for at most about twice `timeout_s`, apart from name lookup.

    Raises OSError (URLError, TimeoutError), `http.client.HTTPException`, or ValueError for too long a body.
    """
    opener = urllib.request.OpenerDirector()  # not build_opener(), which would add ftp:, file: and data:
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        NoDowngrade(),
    ):
        opener.add_handler(handler)
    deadline_s = time.monotonic() + timeout_s
    request = urllib.request.Request(url, headers={"Accept": "application/jwk-set+json, application/json"})
    body = bytearray()
    with opener.open(request, timeout=timeout_s) as response:
        # The socket's timeout is per read, so a trickle needs a deadline of its own.
        while chunk := response.read1(_CHUNK_SIZE):
            body += chunk
            if len(body) > BODY_SIZE_MAX:
                raise ValueError(f"the answer is longer than {BODY_SIZE_MAX} bytes")
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"no whole answer within {timeout_s:g} s")
    return bytes(body)
