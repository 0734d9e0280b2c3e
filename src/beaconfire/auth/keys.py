"""API keys: secrets that backends send with calls of the server API."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence


class ApiKeys:
    """The accepted keys. For a rotation, list the old and the new key. Without keys, nothing is accepted."""

    __slots__ = ("_digests",)

    def __init__(self, keys: Sequence[str]) -> None:
        """Raises ValueError for an empty key, because it would accept an empty header."""
        for index, key in enumerate(keys):
            if not key.strip():
                raise ValueError(f"api.keys[{index}]: expected a secret, got an empty text; remove the entry")
        self._digests = tuple(_digest(key) for key in keys)

    def accepts(self, candidate: str) -> bool:
        """Whether `candidate` is one of the keys. The duration does not reveal how similar they are.

        Compares digests, because `compare_digest` reveals the length of texts, and always compares all of them.
        """
        digest = _digest(candidate)
        accepted = False
        for known in self._digests:
            accepted |= hmac.compare_digest(digest, known)
        return accepted


def _digest(key: str) -> bytes:
    # Header values are arbitrary bytes. A lone surrogate must be a wrong key, not an exception.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
