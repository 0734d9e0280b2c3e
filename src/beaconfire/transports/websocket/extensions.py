"""Which compression a client and this server agree on: permessage-deflate (RFC 7692 section 7.1). No I/O.

Nothing is ever carried over from one message to the next. What the server compresses is then the same for all
connections, so that fan-out does it once, and what clients send is inflated without any state that a connection would
have to keep. RFC 7692 lets a server demand both of any client (sections 7.1.1.1 and 7.1.1.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

WINDOW_BITS = 12
"""Logarithm of the window of what is compressed here, for all connections that allow it. It is what some clients allow
at most, and with its small tables a message of a few kilobytes takes a sixth of the time that it takes with zlib's
usual ones."""

LEAST_WINDOW_BITS = 9
"""The smallest window that zlib can compress with. RFC 7692 section 7.1.2.1 lets a client ask for 8 as well; then it is
served without compression."""

DEFLATE = "permessage-deflate"

_TAKEOVER = ("server_no_context_takeover", "client_no_context_takeover")
_SERVER_BITS = "server_max_window_bits"
_CLIENT_BITS = "client_max_window_bits"

_AGREED = "; ".join((DEFLATE, *_TAKEOVER))


class NegotiatedDeflate(NamedTuple):
    """What a client's offer came to: the header that answers it, and the window of what it is sent, as a logarithm."""

    answer: str
    window_bits: int


_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PART = re.compile(rf'[ \t]*({_TOKEN})(?:[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)"))?[ \t]*([;,]|$)')
"""An extension or a parameter, and what ends it (RFC 6455 section 9.1)."""

_ESCAPE = re.compile(r"\\(.)")
_BITS = re.compile(r"[89]|1[0-5]")


def negotiate(offers: str) -> NegotiatedDeflate | None:
    """What the offers of a Sec-WebSocket-Extensions header come to; None if none of them can be taken up.

    The first acceptable one wins. A header that is no list of extensions offers nothing.
    """
    if DEFLATE not in offers:
        return None
    for extension, parameters in _parse(offers):
        if extension == DEFLATE and (agreement := _agree(parameters)) is not None:
            return agreement
    return None


def _agree(parameters: list[tuple[str, str | None]]) -> NegotiatedDeflate | None:
    """What one offer comes to; None declines it, as RFC 7692 section 7.1 demands of one it does not allow."""
    given = dict(parameters)
    if len(given) != len(parameters):
        return None
    for name, value in given.items():
        if name in _TAKEOVER:
            if value is not None:
                return None
        elif name == _SERVER_BITS:
            if value is None or not _BITS.fullmatch(value) or int(value) < LEAST_WINDOW_BITS:
                return None
        elif name != _CLIENT_BITS or (value is not None and not _BITS.fullmatch(value)):
            return None
    # Nothing need be said of the client's window: whatever it chooses can be read, since none is kept.
    allowed = given.get(_SERVER_BITS)
    if allowed is None:
        return NegotiatedDeflate(_AGREED, WINDOW_BITS)
    bits = min(int(allowed), WINDOW_BITS)
    return NegotiatedDeflate(f"{_AGREED}; {_SERVER_BITS}={bits}", bits)


def _parse(header: str) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Every extension with its parameters, up to the first that is malformed."""
    at, end = 0, len(header)
    while at < end:
        name, parameters = "", []
        separator = ";"
        while separator == ";":
            part = _PART.match(header, at)
            if part is None:
                return
            at, separator = part.end(), part[4]
            value = part[2] if part[3] is None else _ESCAPE.sub(r"\1", part[3])
            if name:
                parameters.append((part[1], value))
            elif value is None:
                name = part[1]
            else:
                return
        yield name, parameters
