"""Which Host header fields a request may have (RFC 9112 section 3.2)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_KNOWN_MAX: Final = 64
"""Values of the field that are remembered, because nearly all requests have the same few. Each is shorter than a
request's head may be, so what clients invent takes 64 times `server.header_max_size` at most."""

_HOST = re.compile(
    rb"(?:\[[0-9A-Za-z:.%~_-]+\]"  # an IPv6 address
    rb"|(?:[0-9A-Za-z._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)"  # an IPv4 address or a name, which may be empty
    rb"(?::[0-9]*)?"
)
"""`uri-host [ ":" port ]` of RFC 9110 section 7.2, with the characters of RFC 3986 section 3.2.2."""


@lru_cache(_KNOWN_MAX)
def is_valid(value: bytes) -> bool:
    """Whether this may be the value of a request's one Host header field, blanks at its end aside.

    It may be empty: that is what a request says whose target has no host.
    """
    return _HOST.fullmatch(value.rstrip(b" \t")) is not None
