"""Which web pages may open a connection: the check that stops a foreign site from using a visitor's session."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

ORIGIN_LENGTH_MAX: Final = 512
"""Characters of an Origin header that is looked at: a scheme, a host of at most 253 and a port. Matching takes time
that grows with the square of the length, so a header of 32 KB would hold up everybody."""


class OriginRules:
    """The allow-list of origins, compiled once.

    A pattern is matched, in lower case, against the whole Origin header (`https://chat.example.com:8443`): `*` stands
    for any characters but a slash, `?` for one of them. The pattern `*` alone allows every origin. Requests without
    the header do not come from a browser and always pass (protocol reference, section 4). A header longer than
    `ORIGIN_LENGTH_MAX` comes from nobody honest and matches no other pattern. Nor does a browser send two of these
    headers (RFC 6454 section 7.3): callers join repeated ones with `, `, and such a value is never allowed.
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
    """The glob as a regular expression. A wildcard stops at slashes: the host must not swallow the scheme.

    What stands between two wildcards is looked for once, where it is first (`(?>…)` does not try again further on):
    if that place does not lead to a match, no later one does. So the time grows with the square of the length at most,
    however many wildcards there are.
    """
    first, *others = (
        "".join("[^/]" if character == "?" else re.escape(character) for character in part)
        for part in pattern.lower().split("*")
    )
    if not others:
        return first
    *middle, last = others
    return first + "".join(f"(?>[^/]*?{part})" for part in middle) + f"[^/]*{last}"
