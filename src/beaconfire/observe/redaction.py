"""Removes tokens, keys and other secrets from log lines and health reports.

The server does not log secrets. This module removes secrets inside other text: a query string in an exception, a
header in the warning of a library. It may hide a harmless word, but should never show a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isfinite

REDACTED = "[redacted]"
SECRET_LENGTH_MIN = 8
"""Shorter known secrets are not searched, because they would match inside ordinary words."""
DEPTH_MAX = 4
"""Levels of nested containers that are redacted value by value. Deeper containers are redacted as text."""

_SECRET_KEY = re.compile(
    r"(?:token|ticket|secret|password|passwd|api[_-]?key|authorization|cookie|private[_-]?key)$", re.I
)
_NAME = r"(?:token|ticket|secret|password|passwd|api(?:[_-]|%5f)?key|authorization|cookie)"
_QUOTE = r"\\*[\"']"
_QUOTED = r"(?!\[redacted)(?:[^\"'\\]|\\[^\"'])+"
_BARE = r"(?:[^\s&\"'<>\\;,)]|\\[^\s\"'])+"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # a JSON Web Token, complete or truncated: its header is JSON, and {" is eyJ in base64
    (re.compile(r"eyJ[\w-]{8,}(?:(?:\.|%2e)[\w-]*)*", re.I), REDACTED),
    # the password of a URL: scheme://user:password@host
    (re.compile(r"(://[^\s/:@]*:)[^\s/@]+@"), rf"\1{REDACTED}@"),
    # credentials after a scheme of the Authorization header, anywhere in the text
    (re.compile(rf"\b(bearer|apikey|basic)(\s+|%20)(?!\[){_BARE}", re.I), rf"\1 {REDACTED}"),
    # "token": "…", 'token': '…', token="…", b'authorization', b'…' and the same with escaped quotes
    (re.compile(rf"({_NAME}(?:{_QUOTE}\s*[:,=]|\s*=)\s*b?{_QUOTE}){_QUOTED}", re.I), rf"\1{REDACTED}"),
    # token=… in queries, forms and settings, plain or percent-encoded
    (re.compile(rf"({_NAME}\s*(?:=|%3d)\s*)(?!\[redacted|b?{_QUOTE}){_BARE}", re.I), rf"\1{REDACTED}"),
    # X-API-Key: … as in headers. Not for token, because "invalid token: expired" must stay readable.
    (
        re.compile(rf"\b((?:x-)?api[_-]key|authorization|cookie)(:\s*)(?!\[|bearer|apikey|basic){_BARE}", re.I),
        rf"\1\2{REDACTED}",
    ),
)
# Every pattern and every secret key contains one of these marks. Nearly all text contains none, so searching the marks
# first is fast.
_MARKS = (
    *("eyj", "://", "bearer", "apikey", "api_key", "api-key", "api%5fkey", "basic"),
    *("token", "ticket", "secret", "passw", "authorization", "cookie", "private"),
)


class Redactor:
    """Redacts text and values. `secrets` are exact strings that must never appear."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= SECRET_LENGTH_MIN}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, known))) if known else None

    def fields(self, fields: Mapping[str, object]) -> Mapping[str, object]:
        """The redacted values with the same names in the same order; the same object if no value changed."""
        texts: list[str] = []
        for key, value in fields.items():
            texts.append(key)
            if isinstance(value, str):
                texts.append(value)
            elif type(value) is not int:
                break
        else:
            # The usual line: a few words and numbers without secrets. One search covers all of them.
            together = "\n".join(texts)
            if not _is_marked(together) and (self._secrets is None or self._secrets.search(together) is None):
                return fields
        return {key: self.field(key, value) for key, value in fields.items()}

    def text(self, text: str) -> str:
        """The text, with each known secret and each text that looks like a secret replaced."""
        if self._secrets is not None:
            text = self._secrets.sub(REDACTED, text)
        if not _is_marked(text):
            return text
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def value(self, value: object, depth: int = 0) -> object:
        """The redacted value: containers keep their structure, finite numbers stay, all other values become text."""
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
        """The redacted value of a field; completely hidden if the name of the field says that it is a secret."""
        if _SECRET_KEY.search(key) and value is not None and not isinstance(value, bool):
            return REDACTED
        return self.value(value, depth)


def _is_marked(text: str) -> bool:
    text = text.lower()
    for mark in _MARKS:  # noqa: SIM110 - any() with a generator takes twice as long
        if mark in text:
            return True
    return False
