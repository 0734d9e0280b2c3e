"""Keeps tokens, keys and secrets out of whatever is written down.

The first line of defence is not to log them. This is the second, for what arrives inside other text: a query string in
an exception, a header in a library's warning. It would rather hide a harmless word than show a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isfinite

REDACTED = "[redacted]"
SECRET_LENGTH_MIN = 8
"""Known secrets shorter than this are not searched for: they would be found inside ordinary words."""
DEPTH_MAX = 4
"""How deep containers are looked into; what lies deeper is shown, redacted, as text."""

_SECRET_KEY = re.compile(r"(?:token|secret|password|passwd|api[_-]?key|authorization|cookie|private[_-]?key)$", re.I)
_NAME = r"(?:token|secret|password|passwd|api(?:[_-]|%5f)?key|authorization|cookie)"
_QUOTE = r"\\*[\"']"
_QUOTED = r"(?!\[redacted)(?:[^\"'\\]|\\[^\"'])+"
_BARE = r"(?:[^\s&\"'<>\\;,)]|\\[^\s\"'])+"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # a JSON Web Token, whole or cut short: its header is JSON, and {" is eyJ in base64
    (re.compile(r"eyJ[\w-]{8,}(?:(?:\.|%2e)[\w-]*)*", re.I), REDACTED),
    # password of a URL: scheme://user:password@host
    (re.compile(r"(://[^\s/:@]*:)[^\s/@]+@"), rf"\1{REDACTED}@"),
    # the schemes of the Authorization header, wherever they appear
    (re.compile(rf"\b(bearer|apikey|basic)(\s+|%20)(?!\[){_BARE}", re.I), rf"\1 {REDACTED}"),
    # "token": "…", 'token': '…', token="…", b'authorization', b'…' and the same with escaped quotes
    (re.compile(rf"({_NAME}(?:{_QUOTE}\s*[:,=]|\s*=)\s*b?{_QUOTE}){_QUOTED}", re.I), rf"\1{REDACTED}"),
    # token=… in queries, forms and settings, plain or percent-encoded
    (re.compile(rf"({_NAME}\s*(?:=|%3d)\s*)(?!\[redacted|b?{_QUOTE}){_BARE}", re.I), rf"\1{REDACTED}"),
    # X-API-Key: … as headers are written. Not for token: "invalid token: expired" must stay readable.
    (
        re.compile(rf"\b((?:x-)?api[_-]key|authorization|cookie)(:\s*)(?!\[|bearer|apikey|basic){_BARE}", re.I),
        rf"\1\2{REDACTED}",
    ),
)
# Every pattern and every secret key has one of these in it. Looking for them first makes clean text cheap, and nearly
# all text is clean.
_MARKS = (
    *("eyj", "://", "bearer", "apikey", "api_key", "api-key", "api%5fkey", "basic"),
    *("token", "secret", "passw", "authorization", "cookie", "private"),
)


class Redactor:
    """Redacts text and values. `secrets` are the exact strings this server must never show."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= SECRET_LENGTH_MIN}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, known))) if known else None

    def fields(self, fields: Mapping[str, object]) -> Mapping[str, object]:
        """Named values with the same names, in the same order; the same object if nothing had to change."""
        texts: list[str] = []
        for key, value in fields.items():
            texts.append(key)
            if isinstance(value, str):
                texts.append(value)
            elif type(value) is not int:
                break
        else:
            # The usual line: a few clean words and numbers, looked at in one go.
            together = "\n".join(texts)
            if not _is_marked(together) and (self._secrets is None or self._secrets.search(together) is None):
                return fields
        return {key: self.field(key, value) for key, value in fields.items()}

    def text(self, text: str) -> str:
        """The text with everything that looks like a secret, or is a known one, replaced."""
        if self._secrets is not None:
            text = self._secrets.sub(REDACTED, text)
        if not _is_marked(text):
            return text
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def value(self, value: object, depth: int = 0) -> object:
        """The same for any value: containers keep their shape, finite numbers stay, the rest becomes text."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool | int) or (isinstance(value, float) and isfinite(value)):
            return value
        if isinstance(value, bytes | bytearray | memoryview):
            return self.text(bytes(value).decode("utf-8", "backslashreplace"))
        if depth < DEPTH_MAX:
            if isinstance(value, Mapping):
                return {str(key): self.field(str(key), each, depth + 1) for key, each in value.items()}
            if isinstance(value, list | tuple | set | frozenset):
                return [self.value(each, depth + 1) for each in value]
        return self.text(str(value))

    def field(self, key: str, value: object, depth: int = 0) -> object:
        """A named value: hidden altogether if the name says that it is a secret."""
        if _SECRET_KEY.search(key) and value is not None and not isinstance(value, bool):
            return REDACTED
        return self.value(value, depth)


def _is_marked(text: str) -> bool:
    text = text.lower()
    for mark in _MARKS:  # noqa: SIM110 - a generator for any() doubles the cost
        if mark in text:
            return True
    return False
