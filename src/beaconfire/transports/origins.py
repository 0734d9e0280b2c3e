"""Checks the Origin header, so that a foreign web site cannot use a visitor's session."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

ORIGIN_LENGTH_MAX: Final = 512
"""The longest Origin header that is matched, in characters: a scheme, a host of at most 253 characters and a port. The
time of matching grows with the square of the length, so a header of 32 KB would block the event loop."""


class OriginRules:
    """The allow-list of origins, compiled once.

    - A pattern is matched in lower case against the whole Origin header (`https://chat.example.com:8443`). `*` stands
      for any characters except slashes, `?` for one such character. The pattern `*` alone allows every origin.
    - A request without the header does not come from a browser and is always allowed (protocol reference, section 4).
    - A header longer than `ORIGIN_LENGTH_MAX` matches only the pattern `*`: no browser sends such a header.
    - A browser does not send two Origin headers (RFC 6454 section 7.3). Callers join repeated headers with `, `, and
      such a value is never allowed.
    """

    __slots__ = ("_any", "_pattern")

    def __init__(self, patterns: Sequence[str]) -> None:
        self._any = "*" in patterns
        self._pattern = re.compile("|".join(_expression(pattern) for pattern in patterns)) if patterns else None

    def allow(self, origin: str | None) -> bool:
        if origin is None:
            return True
        if ", " in origin:
            return False
        if self._any:
            return True
        if self._pattern is None or len(origin) > ORIGIN_LENGTH_MAX:
            return False
        return self._pattern.fullmatch(origin.lower()) is not None


def _expression(pattern: str) -> str:
    """The pattern as a regular expression. A wildcard matches no slash, so that it cannot match from host to scheme.

    The text between two wildcards is searched once, and only its first occurrence is tried (`(?>…)` does not
    backtrack): if the first occurrence leads to no match, no later one does. So the time grows at most with the square
    of the length, for any number of wildcards.
    """
    first, *rest = (
        "".join("[^/]" if character == "?" else re.escape(character) for character in part)
        for part in pattern.lower().split("*")
    )
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>[^/]*?{part})" for part in middle) + f"[^/]*{last}"
