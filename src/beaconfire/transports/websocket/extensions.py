"""Negotiates compression with a client: permessage-deflate (RFC 7692 section 7.1). No I/O.

No context is carried over from one message to the next, in either direction. So the server's compressed messages are
the same for all connections and fan-out compresses once, and a connection keeps no state to inflate its client's
messages. RFC 7692 lets a server require both of any client (sections 7.1.1.1 and 7.1.1.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

WINDOW_BITS = 12
"""Base-2 logarithm of the server's compression window, for all connections that allow it. Some clients allow no larger
window. Its tables are small: a message of a few kilobytes takes a sixth of the time of zlib's default window."""

WINDOW_BITS_MIN = 9
"""The smallest window that zlib can compress with. RFC 7692 section 7.1.2.1 lets a client request 8 as well; such a
client gets no compression."""

DEFLATE = "permessage-deflate"

_TAKEOVER = ("server_no_context_takeover", "client_no_context_takeover")
_SERVER_BITS = "server_max_window_bits"
_CLIENT_BITS = "client_max_window_bits"

_ACCEPTED = "; ".join((DEFLATE, *_TAKEOVER))


class NegotiatedDeflate(NamedTuple):
    """An accepted offer: the value of the response header, and the logarithm of the server's window."""

    response_header: str
    window_bits: int


_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PART = re.compile(rf'[ \t]*({_TOKEN})(?:[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)"))?[ \t]*([;,]|$)')
"""An extension or a parameter with its separator (RFC 6455 section 9.1)."""

_ESCAPE = re.compile(r"\\(.)")
_BITS = re.compile(r"[89]|1[0-5]")


def negotiate(offers: str) -> NegotiatedDeflate | None:
    """Accepts the first acceptable offer of a Sec-WebSocket-Extensions header; None if there is none.

    A malformed header offers nothing from its first malformed extension on.
    """
    if DEFLATE not in offers:
        return None
    for extension, parameters in _parse(offers):
        if extension == DEFLATE and (negotiated := _accept(parameters)) is not None:
            return negotiated
    return None


def _accept(parameters: list[tuple[str, str | None]]) -> NegotiatedDeflate | None:
    """Accepts one offer, or declines it by None, as RFC 7692 section 7.1 requires for an invalid offer."""
    given = dict(parameters)
    if len(given) != len(parameters):
        return None
    for name, value in given.items():
        if name in _TAKEOVER:
            if value is not None:
                return None
        elif name == _SERVER_BITS:
            if value is None or not _BITS.fullmatch(value) or int(value) < WINDOW_BITS_MIN:
                return None
        elif name != _CLIENT_BITS or (value is not None and not _BITS.fullmatch(value)):
            return None
    # The response does not limit the client's window: no window is kept, so any size can be read.
    allowed = given.get(_SERVER_BITS)
    if allowed is None:
        return NegotiatedDeflate(_ACCEPTED, WINDOW_BITS)
    bits = min(int(allowed), WINDOW_BITS)
    return NegotiatedDeflate(f"{_ACCEPTED}; {_SERVER_BITS}={bits}", bits)


def _parse(header: str) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Every extension with its parameters, up to the first malformed one."""
    position, end = 0, len(header)
    while position < end:
        name, parameters = "", []
        separator = ";"
        while separator == ";":
            part = _PART.match(header, position)
            if part is None:
                return
            position, separator = part.end(), part[4]
            value = part[2] if part[3] is None else _ESCAPE.sub(r"\1", part[3])
            if name:
                parameters.append((part[1], value))
            elif value is None:
                name = part[1]
            else:
                return
        yield name, parameters
