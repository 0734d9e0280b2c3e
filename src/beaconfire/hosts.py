"""Which Host header fields a request may have (RFC 9112 section 3.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence

_HOST = re.compile(
    rb"(?:\[[0-9A-Za-z:.%~_-]+\]"  # an IPv6 address
    rb"|(?:[0-9A-Za-z._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)"  # an IPv4 address or a name, which may be empty
    rb"(?::[0-9]*)?"
)
"""`uri-host [ ":" port ]` of RFC 9110 section 7.2, with the characters of RFC 3986 section 3.2.2."""


def is_valid(fields: Sequence[bytes]) -> bool:
    """Whether a request of HTTP/1.1 may have these values of its Host header fields: exactly one, and a valid one.

    The one value may be empty, which is what a request says whose target has no host.
    """
    return len(fields) == 1 and _HOST.fullmatch(fields[0].rstrip(b" \t")) is not None
